package uploader

import (
	"strings"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// Renaming precedes a rename, and renamed follows the call of Renamed or Exchanged for
// it. Meanwhile no file is taken for one that is nowhere in the tree.
func (u *Uploader) Renaming() (renamed func()) {
	u.recovery.renames.RLock()
	return u.recovery.renames.RUnlock
}

// Renamed tells that a file, or a directory with all below it, has another name.
// A held file with a final name is sent now.
func (u *Uploader) Renamed(from, to string, key backing.Key, dir bool) {
	if !dir {
		u.named(key, to)
		return
	}
	u.recovery.directoryMoved([]move{{from, to}}, to)
	u.moved(func(path string) (string, bool) { return rebase(path, from, to) })
	u.recordMove(from, to)
}

// moved gives every session whose file has another path now the one that where
// says.
func (u *Uploader) moved(where func(path string) (string, bool)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.sessions {
		s.mu.Lock()
		if path, ok := where(s.rec.Path); ok {
			before := s.nameClass()
			s.rec.Path = path
			s.publish()
			if s.nameClass() != before { // else it is the file that has been decided about
				s.renamed()
			}
		}
		s.mu.Unlock()
	}
}

// rebase is where a path leads that was below the directory from, which is to now.
func rebase(path, from, to string) (string, bool) {
	rest, ok := strings.CutPrefix(path, from+"/")
	return to + "/" + rest, ok
}

func (u *Uploader) recordMove(from, to string) {
	if err := u.journal.Renamed(from, to); err != nil {
		u.log.Error("new name not recorded", "from", from, "to", to, "error", err)
	}
}

// Linked tells that a file has got a further name. It goes by the name it had,
// unless that was one for unfinished files and the new one is not: then this is
// how its writer gives it its final name (git does).
func (u *Uploader) Linked(key backing.Key, path string) {
	was := u.Status(key, path)
	held := u.names.classOf(was.Path, was.temporary) == nameHeld
	if was.Path == path || held && u.names.classOf(path, was.temporary && u.names.staysTemporary(path)) != nameHeld {
		u.named(key, path)
	}
}

// named gives the file the name that it is known by from now on.
func (u *Uploader) named(key backing.Key, path string) {
	if err := u.look(key, path); err != nil {
		u.log.Error("not compared with its record", "path", path, "error", err)
	}
	u.mu.Lock()
	busy := u.sessions[key] != nil
	u.mu.Unlock()
	if r, err := u.journal.Get(key); !busy && err == nil && r == nil {
		return // never written to
	}
	s, err := u.refKey(key, path)
	if err != nil {
		u.log.Error("new name not recorded", "path", path, "error", err)
		return
	}
	defer u.unref(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rec.Path = path
	s.rec.Temporary = s.rec.Temporary && u.names.staysTemporary(path)
	if s.unlinked {
		s.linked()
	}
	s.save()
	s.publish()
	s.renamed()
}

// Exchanged tells that two names have changed places, with all below them.
func (u *Uploader) Exchanged(a, b string) {
	// No path below the mount begins with a slash, so nothing is in its way.
	const aside = "/aside"
	moves := []move{{a, aside}, {b, a}, {aside, b}}
	u.recovery.directoryMoved(moves, a, b)
	u.moved(func(path string) (string, bool) {
		if now, ok := rebase(path, a, b); ok {
			return now, true
		}
		return rebase(path, b, a)
	})
	for _, m := range moves {
		u.recordMove(m.from, m.to)
	}
	for _, path := range []string{a, b} {
		if info, err := u.tree.Stat(path); err == nil && info.Regular() {
			u.named(info.Key, path)
		}
	}
}

// Removed tells that a file has lost the name path; last says that it was its
// last one, and then nothing of the file is sent any more. The File, where there
// is one, stays at the API.
func (u *Uploader) Removed(key backing.Key, path string, last bool) {
	if !last {
		if u.goesBy(key) != path {
			return
		}
		if other, err := u.tree.Find(key, path); err == nil {
			u.named(key, other)
		}
		return
	}
	s := u.refRemoved(key)
	if s != nil {
		defer u.unref(s)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unlinked = true
		s.stopDeferring()
		s.settling.reset()
		s.dropTransfer(errUnlinked)
		s.answer(^uint64(0), errUnlinked)
		s.forgetCommit()
		s.publish()
	}
	u.madeOften.forget(key)
	u.troubled.forget(key)
	if err := u.journal.Delete(key); err != nil {
		u.log.Error("not forgotten", "path", path, "error", err)
	}
}

// goesBy is the name by which a file is known that has work, or is named by Snapshot; ""
// for another.
func (u *Uploader) goesBy(key backing.Key) string {
	u.mu.Lock()
	s := u.sessions[key]
	u.mu.Unlock()
	if s != nil {
		return s.status.Load().Path
	}
	r, err := u.journal.Get(key)
	if err != nil || r == nil || r.State == state.Completed || r.State == state.Empty {
		return ""
	}
	return r.Path
}

// refRemoved finds the session of a file that has no name any more, or makes it where
// its Upload is to be cancelled; else it is nil.
func (u *Uploader) refRemoved(key backing.Key) *session {
	u.forgetLook(key)
	s := u.refInMemory(key)
	if s != nil || u.ctx.Err() != nil {
		return s
	}
	r, err := u.journal.Get(key)
	if err != nil || r == nil || r.State == state.Completed || r.Upload.ID == "" {
		return nil
	}
	if s, err = u.refKey(key, ""); err != nil {
		u.log.Error("upload not cancelled; it expires by itself", "upload", r.Upload.ID, "error", err)
		return nil
	}
	return s
}

// refInMemory is the session of a file, as refKey gives it, where there is one; else nil.
func (u *Uploader) refInMemory(key backing.Key) *session {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sessions[key]
	if s != nil {
		s.refs++
	}
	return s
}
