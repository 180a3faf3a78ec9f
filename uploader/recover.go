package uploader

import (
	"errors"
	"fmt"
	"math"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
)

// recover compares the journal with the tree and goes on where the last daemon
// stopped. It decides by what the journal was told before the effect:
//
//   - A file whose last close had been seen is sent. Parts that the API has and
//     that still equal the file are not sent again.
//   - A file that was open and changed, or whose content is not the one that was
//     completed, is interrupted: nobody can tell whether it is whole.
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
	rows, err := u.journal.all("")
	if err != nil {
		return err
	}
	for _, r := range rows {
		f, there := seen[r.key]
		delete(seen, r.key)
		if !there {
			if err := u.journal.delete(r.key); err != nil {
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
		r := &record{key: key, state: StateEmpty, since: time.Now()}
		if err := u.keep(r, f, "found in the tree without a record of it"); err != nil {
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
func (u *Uploader) resume(r *record, f found) error {
	wasOpen := r.open
	r.open, r.path = false, f.path
	same := r.size == f.info.Size
	if same && r.mtime != f.info.Mtime && r.state == StateCompleted {
		var err error
		if same, err = u.unchanged(r, f); err != nil {
			return err
		}
		r.mtime, wasOpen = f.info.Mtime, true
	}
	switch r.state {
	case StateWriting:
		return u.keep(r, f, "its writer did not close it before the last daemon ended")
	case StateEmpty:
		if f.info.Size > 0 || wasOpen {
			return u.keep(r, f, "its writer did not close it before the last daemon ended")
		}
		return nil
	case StateCompleted, StateExcluded:
		if !same {
			return u.keep(r, f, "its content changed while it was not mounted")
		}
		if r.state == StateExcluded && !u.names.excluded(r.path) {
			return u.load(r, (*session).renamed) // it is not excluded any more
		}
		if wasOpen {
			return u.journal.put(r)
		}
		return nil
	case StateInterrupted:
		return u.load(r, nil)
	case StateFailed:
		if r.kind == api.Damaged {
			return u.load(r, nil)
		}
	}
	if !same {
		return u.keep(r, f, "its content changed while it was not mounted")
	}
	r.err, r.kind = "", api.Transient
	return u.load(r, func(s *session) {
		s.renamed() // which names are held or excluded may be other ones now
		switch {
		case s.rec.state == StateHeld:
			s.armHold()
			return
		case s.rec.state == StateExcluded:
			return
		case u.names.excluded(s.rec.path) && !s.rec.completing:
			s.dropTransfer(errors.New("excluded"))
			s.move(StateExcluded, nil)
			return
		case s.rec.state != StateUploading:
			s.move(StateUploading, nil)
		}
		s.start()
	})
}

// unchanged compares a completed file with the CRCs of the parts it was sent in.
func (u *Uploader) unchanged(r *record, f found) (bool, error) {
	parts, err := u.journal.parts(r.key)
	if err != nil {
		return false, err
	}
	file, err := u.tree.OpenKey(r.key, f.path)
	if err != nil {
		return false, fmt.Errorf("backing tree: %w", err)
	}
	defer file.Close()
	end := int64(0)
	for _, p := range parts {
		if p.off != end {
			return false, nil
		}
		end = p.off + p.n
	}
	if end != r.size {
		return false, nil
	}
	same, err := allEqual(u.ctx, file, parts)
	if err != nil {
		return false, fmt.Errorf("backing tree: %s: %w", f.path, err)
	}
	return same, nil
}

// keep makes the file interrupted.
func (u *Uploader) keep(r *record, f found, reason string) error {
	r.path, r.open, r.size = f.path, false, f.info.Size
	if r.fileID != "" || r.completing {
		// What came of them is not what is here now.
		if r.fileID != "" {
			r.superseded = append(r.superseded, r.fileID)
		}
		r.fileID, r.md5, r.completing = "", "", false
		r.spec, r.upload, r.created = api.Spec{}, api.Upload{}, time.Time{}
		if err := u.journal.dropParts(r.key); err != nil {
			return err
		}
	}
	u.log.Warn("interrupted", "path", r.path, "why", reason)
	return u.load(r, func(s *session) {
		if !s.rec.state.may(StateInterrupted) {
			s.rec.state = StateWriting // it has been written to, whoever did
		}
		s.interrupt(reason)
	})
}

// load puts the session of a record into the table, with the transfer that its
// Upload can still take up, and lets then do the rest.
func (u *Uploader) load(r *record, then func(*session)) error {
	if r.upload.ID != "" { // of thousands that wait for their turn, few have got so far
		var err error
		if r.parts, err = u.journal.parts(r.key); err != nil {
			return err
		}
	}
	s := newSession(u, r.key)
	s.rec = *r
	s.content.size = r.size
	u.mu.Lock()
	u.sessions[r.key] = s
	u.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.state == StateFailed && r.kind == api.Damaged {
		// Which bytes are missing is forgotten, so only a file that is
		// written anew from its start is known to be whole.
		s.poison.add(0, math.MaxInt64)
		s.lost = s.standing()
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
	up := s.rec.upload
	expired := time.Now().After(up.ExpiresAt) && !s.rec.completing
	if up.ID == "" || s.rec.spec.Bytes != s.content.size || expired {
		return
	}
	spec, created, parts := s.rec.spec, s.rec.created, s.rec.parts
	x := s.newTransfer(spec.Bytes)
	x.declared(spec, up, created)
	x.resumed(parts, s.u.chunk)
}
