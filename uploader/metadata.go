package uploader

import (
	"cmp"
	"slices"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// MetadataChange is a file whose metadata a call changes, and whose content it leaves.
type MetadataChange struct {
	Key   backing.Key
	Path  string
	Mtime bool                         // the call may set the modification time
	Stat  func() (backing.Info, error) // describes the file, before the call and after it
}

// ChangeMetadata surrounds do, which changes the metadata of files: chmod, chown,
// utimes, setxattr, link, unlink, rename. Each of them moves the ctime, by which the
// next mount knows the content of the last close. The new times are recorded only
// where the file had the recorded size and times just before; the size never is.
//
// The error is that of do. It is the one place where two sessions are locked at once,
// in the order of their keys, and do must not call the Uploader.
func (u *Uploader) ChangeMetadata(do func() error, files ...MetadataChange) error {
	slices.SortFunc(files, func(a, b MetadataChange) int {
		return cmp.Or(cmp.Compare(a.Key.Ino, b.Key.Ino), cmp.Compare(a.Key.Birth, b.Key.Birth))
	})
	files = slices.CompactFunc(files, func(a, b MetadataChange) bool { return a.Key == b.Key })
	// All are found before one is locked, and let go of when none is: both need
	// Uploader.mu, which comes before a session's.
	sessions := make([]*session, len(files))
	for i, f := range files {
		if s := u.refRecorded(f); s != nil {
			sessions[i] = s
			defer u.unref(s)
		}
	}
	var record []func()
	for i, s := range sessions {
		if s == nil {
			continue
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if after := s.beforeMetadataChange(files[i]); after != nil {
			record = append(record, after)
		}
	}
	if err := do(); err != nil {
		return err
	}
	for _, after := range record {
		after()
	}
	return nil
}

// refRecorded finds the session of a file in the table, or makes one where the journal
// has a record that the change concerns; else it is nil.
func (u *Uploader) refRecorded(f MetadataChange) *session {
	if err := u.look(f.Key, f.Path); err != nil && u.ctx.Err() == nil {
		u.log.Error("not compared with its record", "path", f.Path, "error", err)
	}
	u.mu.Lock()
	s := u.sessions[f.Key]
	if s != nil {
		s.refs++
	}
	u.mu.Unlock()
	if s != nil || u.ctx.Err() != nil {
		return s
	}
	is, err := u.journal.StateOf(f.Key)
	if err == nil && goesByTimes(is, f.Mtime) {
		s, err = u.refKey(f.Key, "")
	}
	if err != nil {
		u.log.Error("new times not recorded", "key", f.Key, "error", err)
	}
	return s
}

// goesByTimes reports whether the next mount goes by the times of a file in this
// state. A completed one is compared by size and mtime, and where they differ by its
// CRCs; its ctime does not count.
func goesByTimes(is state.State, mtime bool) bool {
	switch is {
	case state.Uploading, state.Retrying, state.Held, state.Excluded, state.Failed:
		return true
	case state.Completed:
		return mtime
	}
	return false
}

// beforeMetadataChange looks at the file before its metadata changes. It returns what
// follows the change, nil if that is nothing. mu is held.
func (s *session) beforeMetadataChange(f MetadataChange) (after func()) {
	if s.unlinked || !f.Mtime && !goesByTimes(s.rec.State, false) {
		return nil
	}
	s.observer.poll() // what was written before must not hide behind the new time
	before, err := f.Stat()
	if err != nil {
		return nil
	}
	return func() {
		now, err := f.Stat()
		if err != nil || now.Size != before.Size || now.Mtime != before.Mtime && !f.Mtime {
			return // a write came between
		}
		s.observer.metadataChanged(before, now)
		recorded, was := s.rec.Stamp(), before.Stamp()
		if s.rec.State == state.Completed {
			was.Ctime = recorded.Ctime
		}
		if recorded != was || !goesByTimes(s.rec.State, f.Mtime) || recorded == now.Stamp() || s.u.ctx.Err() != nil {
			return
		}
		s.rec.Mtime, s.rec.Ctime = now.Mtime, now.Ctime
		s.save()
		s.syncLater()
	}
}
