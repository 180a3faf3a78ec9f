package uploader

import (
	"fmt"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// recover compares the journal with the tree and goes on where the last daemon
// stopped. It decides by what the journal was told before the effect:
//
//   - A file whose last close had been seen is sent. Parts that the API has and
//     that still equal the file are not sent again.
//   - A file that was open and changed, or whose content is not the one that was
//     completed, is interrupted: whether it is whole cannot be told.
//   - A file that the journal does not know was made behind the mount, or the
//     last records were lost with the power: interrupted too.
func (u *Uploader) recover() error {
	seen := map[backing.Key]found{}
	err := u.tree.Walk(func(rel string, info backing.Info) error {
		if _, again := seen[info.Key]; !again {
			seen[info.Key] = found{rel, info}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("backing tree: %w", err)
	}
	rows, err := u.journal.All()
	if err != nil {
		return err
	}
	for _, r := range rows {
		f, there := seen[r.Key]
		delete(seen, r.Key)
		if !there {
			if err := u.journal.Delete(r.Key); err != nil {
				return err
			}
			continue
		}
		if err := u.resume(r, f); err != nil {
			return err
		}
	}
	for key, f := range seen {
		if f.info.Size == 0 {
			continue
		}
		r := &journal.Record{Key: key, State: state.Empty, Since: time.Now()}
		if err := u.keep(r, f, reasonNoRecord); err != nil {
			return err
		}
	}
	return nil
}

// found is a file of the tree, under one of its names.
type found struct {
	path string
	info backing.Info
}

// resume goes on with one file.
func (u *Uploader) resume(r *journal.Record, f found) error {
	known := facts{
		event: eventMounted, state: r.State, name: u.names.classOf(f.path), size: f.info.Size,
		lost: r.Kind == api.Damaged, completing: r.Completing,
		changed: r.Size != f.info.Size, wasOpen: r.Open,
	}
	save := r.Open // the record is not what it was
	r.Open, r.Path = false, f.path
	if r.State == state.Completed && !known.changed && r.Mtime != f.info.Mtime {
		same, err := u.recordMatches(r, f)
		if err != nil {
			return err
		}
		known.changed = !same
		r.Mtime, save = f.info.Mtime, true
	}
	d := decide(known)
	switch {
	case d.to == state.Interrupted:
		return u.keep(r, f, d.reason)
	case d.to != "":
		r.Err, r.Kind = "", api.Transient
		return u.load(r, func(s *session) { s.carryOut(d) })
	case r.State == state.Interrupted, r.State == state.Failed:
		return u.load(r, nil)
	case save:
		return u.journal.Put(r)
	}
	return nil
}

// recordMatches compares a completed file with the CRCs of the parts it was sent in.
func (u *Uploader) recordMatches(r *journal.Record, f found) (bool, error) {
	parts, err := u.journal.Parts(r.Key)
	if err != nil {
		return false, err
	}
	file, err := u.tree.OpenKey(r.Key, f.path)
	if err != nil {
		return false, fmt.Errorf("backing tree: %w", err)
	}
	defer file.Close()
	end := int64(0)
	for _, p := range parts {
		if p.Off != end {
			return false, nil
		}
		end = p.Off + p.Len
	}
	if end != r.Size {
		return false, nil
	}
	same, err := partsMatch(u.ctx, file, parts)
	if err != nil {
		return false, fmt.Errorf("backing tree: %s: %w", f.path, err)
	}
	return same, nil
}

// keep makes the file interrupted.
func (u *Uploader) keep(r *journal.Record, f found, reason string) error {
	r.Path, r.Open, r.Size = f.path, false, f.info.Size
	if r.FileID != "" || r.Completing {
		// What came of them is not what is here now.
		if r.FileID != "" {
			r.Superseded = append(r.Superseded, r.FileID)
		}
		r.FileID, r.MD5, r.Completing = "", "", false
		r.Spec, r.Upload, r.CreatedAt = api.Spec{}, api.Upload{}, time.Time{}
		if err := u.journal.DropParts(r.Key); err != nil {
			return err
		}
	}
	u.log.Warn("interrupted", "path", r.Path, "why", reason)
	return u.load(r, func(s *session) {
		if !s.rec.State.CanBecome(state.Interrupted) {
			s.rec.State = state.Writing // it has been written to, by us or behind the mount
		}
		s.interrupt(reason)
	})
}

// load puts the session of a record into the table, with the transfer that its
// Upload can still take up, and lets then do the rest.
func (u *Uploader) load(r *journal.Record, then func(*session)) error {
	if r.Upload.ID != "" { // of thousands that wait for their turn, few have got so far
		var err error
		if r.Parts, err = u.journal.Parts(r.Key); err != nil {
			return err
		}
	}
	s := newSession(u, r.Key)
	s.rec = *r
	s.content.size = r.Size
	u.mu.Lock()
	u.sessions[r.Key] = s
	u.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.State == state.Failed && r.Kind == api.Damaged {
		// Which bytes are missing is forgotten, so only a file that is
		// written anew from its start is known to be whole.
		s.lost.addAll(s.standingError())
	}
	s.reuse()
	s.publish()
	if then != nil {
		then(s)
	}
	return nil
}

// reuse takes up the Upload of the record where it has not expired, or may have
// been completed: what the API has acknowledged counts if it still equals the
// file. mu is held.
func (s *session) reuse() {
	up := s.rec.Upload
	expired := time.Now().After(up.ExpiresAt) && !s.rec.Completing
	if up.ID == "" || s.rec.Spec.Bytes != s.content.size || expired {
		return
	}
	spec, created, parts := s.rec.Spec, s.rec.CreatedAt, s.rec.Parts
	x := s.newTransfer(spec.Bytes)
	x.declared(spec, up, created)
	x.resumed(parts, s.u.chunk)
}
