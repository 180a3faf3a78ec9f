package uploader

import (
	"errors"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// In passthrough a program's descriptor is the kernel's: it works on when the daemon
// has ended, and no request tells the next daemon of it. Such a file is polled as one
// that is being written. When its last writer has gone, it goes on with the content of
// its last close, or is interrupted.

// watchOutlived watches a file that a program has open since an earlier mount. It shows
// as being written; the journal keeps the record of its close, for the next mount. mu
// is held.
func (s *session) watchOutlived() {
	v := s.pollRecorded()
	if v == nil {
		s.keep(reasonOutlived)
		return
	}
	v.mappable = true
	v.outlived, v.watching = s.rec.State, true
	if s.rec.State != state.Completed {
		s.rec.State, s.rec.Since = state.Writing, time.Now()
		s.content.gen++ // no close has spoken of what it will be
	}
	s.u.log.Warn("a program has had the file open for writing since an earlier mount", "path", s.rec.Path)
	v.poll()
	s.publish()
	s.u.wg.Go(func() {
		s.u.pollWhile(v.stillOutlived)
		s.u.ref(s)
		defer s.u.unref(s)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := v.writerGone(); err != nil && s.u.ctx.Err() == nil {
			s.u.log.Error("not resumed", "path", s.rec.Path, "error", err)
		}
		s.closeFile()
	})
}

// watchCommit lets a file that may have a writer since an earlier mount go on only
// while nothing of it changes. mu is held.
func (s *session) watchCommit() {
	if v := s.pollRecorded(); v != nil {
		v.unattended = true
		s.closeFile()
	}
}

// pollRecorded opens the file and lets the session poll it, from the state that its
// record speaks of; nil if it cannot be opened. mu is held.
func (s *session) pollRecorded() *polled {
	if err := s.openFile(); err != nil {
		s.u.log.Error("cannot be watched", "path", s.rec.Path, "error", err)
		return nil
	}
	v, err := newPolled(s)
	if err != nil {
		s.u.log.Error("cannot be watched", "path", s.rec.Path, "error", err)
		s.closeFile()
		return nil
	}
	v.seen.Size, v.seen.Mtime, v.seen.Ctime = s.rec.Size, s.rec.Mtime, s.rec.Ctime
	s.observer = v
	return v
}

// stillOutlived is stillMapped for a file whose writers need not be ours.
func (v *polled) stillOutlived() bool {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unlinked || s.u.ctx.Err() != nil || backing.HasWriter(s.file.f) != backing.Yes {
		return false
	}
	v.showStores()
	return true
}

// writerGone decides what becomes of a file whose last writer has gone. mu is held, but
// not while it reads.
func (v *polled) writerGone() error {
	s := v.s
	was := v.outlived
	v.outlived, v.watching = "", false
	if s.unlinked || s.u.ctx.Err() != nil {
		return nil // the next mount decides
	}
	v.poll()
	s.rec.Open = s.writers > 0
	if was == "" || was == state.Completed {
		// A close through this mount has spoken, or will, but not of what another
		// program wrote later.
		if s.writers == 0 && s.uncommitted() && !s.lost.any() && !s.commits.running {
			s.keep(reasonOutlived)
			return nil
		}
		s.save()
		return nil
	}
	now, err := s.stat()
	if err != nil {
		return err
	}
	r := s.rec
	r.State, r.Open = was, false
	f := found{r.Path, now}
	known, err := s.u.factsOf(&r, &f)
	if err != nil {
		return err
	}
	d := decide(known)
	if d.compare {
		gen := s.content.gen
		s.unlocked(func() { known.sent, err = s.u.compareSent(&r, f) })
		if err != nil {
			return err
		}
		if s.unlinked || s.u.ctx.Err() != nil || s.content.gen != gen || s.writers > 0 {
			return nil // there is a writer of this mount, whose close decides
		}
		d = decide(known)
	}
	switch {
	case d.watch:
		s.keep(reasonOutlived) // a new one, behind the mount
	case d.to == state.Interrupted:
		if d.reason == reasonChanged {
			d.reason = reasonOutlived
		}
		if err := s.u.dropResult(&s.rec); err != nil {
			return err
		}
		s.keep(d.reason)
	default:
		s.rec.State = was
		s.u.accept(&s.rec, f.info)
		s.rec.Err, s.rec.Kind = "", api.Transient
		s.commits.requested = s.content.gen
		s.save()
		s.publish()
		s.carryOut(d)
	}
	return nil
}

// takeOver makes a watched file one that is written through this mount. The journal is
// told with the open. mu is held.
func (v *polled) takeOver() {
	v.unattended = false
	if v.outlived == "" || v.outlived == state.Completed {
		return
	}
	v.outlived = ""
	v.s.startRevision()
	v.s.rec.Open = false // so that the open is recorded
}

// openSinceEarlierMount says that a program which an earlier mount left has the file open: its
// content as it is now is no content that it should have. mu is held.
func (s *session) openSinceEarlierMount() error {
	if !s.resumed {
		return nil // what its writers do is known
	}
	if err := s.openFile(); err != nil {
		return err
	}
	defer s.closeFile()
	if backing.HasWriter(s.file.f) == backing.Yes {
		return errors.New("a program has had it open for writing since an earlier mount: end that program first")
	}
	return nil
}
