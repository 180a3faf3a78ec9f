package uploader

import (
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// In passthrough the kernel writes to the backing file itself. A session then is
// blind: nobody tells it of a write, and it has to find out.
//
//   - That something has changed shows in the backing file's size, mtime and
//     ctime. They are looked at whenever somebody asks: at a close, before
//     Complete, when an attribute is read, and at every [glance] while the file is
//     open for writing.
//   - That a chunk is full is a guess: the size has passed it, and no hole is
//     left in it. Only what was beyond the end at open counts.
//   - That a part still equals its chunk is proven at commit, by reading the file
//     once more and comparing CRC-32C; so is what was hashed early.

// A file that is open for writing is looked at every glance while it changes, so
// that a full chunk is soon on its way, and less and less often, down to every
// longGlance, while it does not. Nothing is looked at while no file is open.
const (
	glance     = 25 * time.Millisecond
	longGlance = 200 * time.Millisecond
)

// afterlife is how often a file without writers is looked at that a mapping can
// still change.
const afterlife = time.Second

// coarseTick is the longest that two changes of a file can have the same ctime
// where the kernel's timestamps are no finer than its timer tick.
const coarseTick = 20 * time.Millisecond

// sight is what a blind session knows of its backing file.
type sight struct {
	seen backing.Info // the last look
	base int64        // the size when the content began: only beyond it holes tell anything
	hole int64        // the file has no hole between base and here

	// epoch counts the moments from which on the content may be another one
	// than before. What was read, and sent, at an earlier epoch has to be
	// compared with the file before it counts.
	epoch uint64
	clean uint64 // the epoch at which the completed content was compared last

	mappable bool // an open since the file had none could have made a mapping that stores
}

// begin starts a new content, which had size bytes before it was changed.
func (v *sight) begin(size int64) { v.base, v.hole = size, size }

// cut forgets what lay beyond size.
func (v *sight) cut(size int64) { v.base, v.hole = min(v.base, size), min(v.hole, size) }

// open makes the session blind, or lets a blind one look again. mu is held.
func (v *sight) open(s *session) (*sight, error) {
	if v == nil {
		info, err := backing.StatFd(int(s.file.Fd()))
		if err != nil {
			return nil, api.LocalError("stat", err)
		}
		v = &sight{seen: info, base: info.Size, hole: info.Size}
	}
	if s.writers == 0 {
		s.watch()
	}
	return v, nil
}

// watch looks at the session's file until it has no writer any more. mu is held.
func (s *session) watch() {
	if s.watched {
		return // the last one has not yet seen that it should end
	}
	s.watched = true
	s.refs++ // until the watch is over
	s.u.wg.Go(func() {
		every := glance
		t := time.NewTimer(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-s.u.ctx.Done():
			}
			s.mu.Lock()
			if s.writers == 0 || s.gone || s.u.ctx.Err() != nil {
				s.watched = false
				s.unhold()
				s.mu.Unlock()
				return
			}
			before := s.sight.seen
			s.look()
			s.findFull()
			every = min(2*every, longGlance)
			if s.sight.seen != before {
				every = glance
			}
			s.mu.Unlock()
			t.Reset(every)
		}
	})
}

// look finds out whether the content of a blind session has changed since the
// last look. mu is held.
func (s *session) look() {
	if s.sight == nil || s.refs == 0 {
		return
	}
	v := s.sight
	info, err := backing.StatFd(int(s.file.Fd()))
	if err != nil || info.Ctime == v.seen.Ctime && info.Mtime == v.seen.Mtime && info.Size == v.seen.Size {
		return
	}
	before := v.seen
	v.seen = info
	v.epoch++
	if info.Size == before.Size && info.Mtime == before.Mtime {
		return // a chmod, a rename, … or a store with the mtime put back
	}
	s.sawChange()
	s.content.size = info.Size
	v.cut(info.Size)
}

// sawChange counts a change that has already happened. mu is held.
func (s *session) sawChange() {
	s.changed()
	s.content.gen++
	s.cond.Broadcast() // a commit under way is of another content now
}

// changedByUs brings the looks up to date after a change that went through the
// daemon and has been counted. mu is held.
func (s *session) changedByUs() {
	if s.sight == nil || s.refs == 0 {
		return
	}
	if info, err := backing.StatFd(int(s.file.Fd())); err == nil {
		s.sight.seen = info
		s.content.size = info.Size
		s.sight.cut(info.Size)
	}
	s.sight.epoch++
}

// findFull takes for written what lies between the size at open and the first
// hole. mu is held.
func (s *session) findFull() {
	v := s.sight
	size := s.content.size
	if v.hole >= size || s.rec.State != state.Writing {
		return
	}
	// On tmpfs every call walks to the end of the file, so one is made only
	// when another chunk can have become full.
	if size/s.u.chunk == v.hole/s.u.chunk && size != s.expected {
		return
	}
	hole, err := backing.FirstHole(int(s.file.Fd()), v.hole)
	if err != nil || hole <= v.hole {
		return
	}
	from := v.hole
	v.hole = min(hole, size)
	s.content.written.add(from, v.hole)
	s.noteWritten(from, v.hole)
}

// beginCommit starts an epoch: what was sent before it is compared. A store through
// a mapping into a page that is dirty already is the one change that does not
// show from now on; while there is a mapping, [session.outlive] sees to that. To
// write the file's pages back first would make it show, and would make the
// commit as slow as the disk. mu is held, but not all the time.
func (s *session) beginCommit() {
	if s.sight == nil {
		return
	}
	s.look()
	if wait := coarseTick - time.Since(time.Unix(0, s.sight.seen.Ctime)); wait > 0 && !backing.FineTimes() {
		s.mu.Unlock()
		time.Sleep(min(wait, coarseTick))
		s.mu.Lock()
		s.look()
	}
	s.sight.epoch++
}

// verify reads the parts that were sent at an earlier epoch once more. One that
// does not have the CRC-32C that it had when it was sent will be sent again. mu is
// held, but not while it reads.
func (s *session) verify(x *transfer) error {
	if s.sight == nil {
		return nil
	}
	for _, p := range x.parts {
		id, epoch := p.id, s.sight.epoch
		if id == "" || p.sending || p.epoch == epoch {
			continue
		}
		file, crc := s.file, p.crc
		s.mu.Unlock()
		same, err := equals(x.ctx, file, p.off, p.n, crc)
		s.mu.Lock()
		switch {
		case err != nil:
			return err
		case p.id != id: // sent anew meanwhile
		case same:
			p.epoch = epoch
		default:
			p.id = ""
			x.replaced++
		}
	}
	return nil
}

// verified reports whether every part was sent, or compared, at this epoch. mu is held.
func (s *session) verified(x *transfer) bool {
	if s.sight == nil {
		return true
	}
	for _, p := range x.parts {
		if p.epoch != s.sight.epoch {
			return false
		}
	}
	return true
}

// settleDoubt looks at what the close of a blind handle may have to speak of. A
// completed file whose ctime has changed is compared with what was sent, so that
// a chmod, or an open without a write, uploads nothing.
func (s *session) settleDoubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sight == nil || s.refs == 0 {
		return
	}
	s.look()
	epoch := s.sight.epoch
	if epoch == s.sight.clean || s.rec.State != state.Completed || s.content.gen != s.asked {
		return
	}
	s.refs++
	same, _ := s.equalsParts() // what cannot be read is not the same
	s.unhold()
	switch {
	case s.rec.State != state.Completed:
	case same:
		s.sight.clean = epoch
	default:
		s.sawChange()
	}
}

// outlive goes on looking at a blind session's file after its last handle is
// released, for as long as a mapping can still change it: in passthrough the
// mapping is of the backing file, and the kernel says nothing of its end. What it
// changed is then committed, as at any release. mu is held.
func (s *session) outlive() {
	if s.u.ctx.Err() != nil {
		return
	}
	s.refs++ // until nothing is left
	s.u.wg.Go(func() {
		t := time.NewTicker(afterlife)
		defer t.Stop()
		for s.mapped() {
			select {
			case <-t.C:
			case <-s.u.ctx.Done():
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.sight.mappable {
			s.compare()
		}
		if !s.gone && s.writers == 0 && s.u.ctx.Err() == nil {
			s.look()
			s.released()
		}
		s.unhold()
	})
}

// compare finds out whether a mapping, which is gone, has changed the content while
// it was committed or since, which shows nowhere else: it may have been gone
// before anybody could see that there was one. mu is held, but not while it reads.
func (s *session) compare() {
	for s.running != nil && !s.gone && s.u.ctx.Err() == nil {
		s.cond.Wait()
	}
	s.sight.mappable = s.writers > 0
	s.sight.epoch++
	s.mu.Unlock()
	s.settleDoubt()
	s.mu.Lock()
}

// mapped reports whether a mapping can still change the file, which has no writer,
// and makes its next store into any page show.
func (s *session) mapped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.writers > 0 || s.u.ctx.Err() != nil || !backing.HasWriter(s.file) {
		return false // with a writer, the next release looks again
	}
	if err := backing.StartWriteback(s.file); err != nil {
		s.u.log.Error("cannot see what a mapping changes", "path", s.rec.Path, "error", err)
	}
	s.look()
	s.sight.epoch++
	return true
}
