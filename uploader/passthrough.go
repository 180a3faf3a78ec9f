package uploader

import (
	"context"
	"math"
	"os"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// In passthrough the kernel writes to the backing file itself. No WRITE reaches
// the daemon, so the session polls the file.
//
//   - A change shows in the backing file's size, mtime and ctime. They are read at
//     a close, before Complete, when an attribute is read, and after every
//     [pollPause] while the file is open for writing.
//   - That a chunk is full is a guess: the size has passed it, and no hole is left
//     in it. Only what was beyond the end at open counts.
//   - That a part still equals its chunk is proven at commit. The file is read once
//     more and its CRC-32C compared. So is what was hashed early.
//   - Which bytes another writer changes while a commit is under way does not show.
//     A CRC-32C that was taken while size, mtime and ctime were those of the close is
//     that of its content. What is sent and hashed later is compared with it. Of a
//     range without one nothing is known, and the close waits for a later commit.

// A file that is open for writing is polled every pollInterval while it changes, so
// that a full chunk is soon on its way. While it does not change, the interval
// grows to idlePollInterval: thousands of files that are only kept open cost nothing. A
// file that is not open is not polled.
const (
	pollInterval     = 25 * time.Millisecond
	idlePollInterval = 5 * time.Second
)

// pollPause is the time to the next poll of a file that has not changed for so long. A
// change is seen late by an eighth of the quiet before it.
func pollPause(quiet time.Duration) time.Duration {
	return min(max(quiet/8, pollInterval), idlePollInterval)
}

// mappingPollInterval is how often a file without writers is polled that a
// mapping can still change.
const mappingPollInterval = time.Second

// coarseTick is the longest that two changes of a file can have the same ctime
// where the kernel's timestamps are no finer than its timer tick.
const coarseTick = 20 * time.Millisecond

// polled is the observer of a session whose writes the kernel makes by itself.
type polled struct {
	s    *session
	seen backing.Info // at the last poll
	base int64        // the size when the revision began: only beyond it holes tell anything
	hole int64        // the file has no hole between base and here

	changes uint64 // the epoch: what was read at an earlier one is compared before it counts
	clean   uint64 // the epoch at which the completed content was compared last
	checked uint64 // the epoch at which the transfer had the file's content

	commit uint64       // the epoch at which the commit under way began
	begun  backing.Info // when it began to send and to hash

	polling    bool          // startPolling's goroutine is at work
	wake       chan struct{} // buffered; lets it look whether it should end
	outlived   state.State   // while watchOutlived is at work: the state that the journal has
	watching   bool          // watchOutlived's goroutine is at work
	unattended bool          // the file may have a writer that is not ours: no change of it is a content

	mappable   bool // an open since the file had none could have made a mapping that stores
	recheckDue bool // such a mapping has gone, and the file is to be compared when it is not committed
}

var _ observer = (*polled)(nil)

// newPolled begins to observe the session's open file by polling.
func newPolled(s *session) (*polled, error) {
	info, err := backing.StatFd(s.file.fd())
	if err != nil {
		return nil, api.LocalError("stat", err)
	}
	return &polled{s: s, seen: info, base: info.Size, hole: info.Size, wake: make(chan struct{}, 1)}, nil
}

// startPolling polls until the file has no writer any more. mu is held.
func (v *polled) startPolling() {
	if v.polling {
		return // the last one has not yet seen that it should end
	}
	v.polling = true
	s := v.s
	s.file.uses++ // until the polling ends
	s.u.wg.Go(func() {
		changed := time.Now()
		t := time.NewTimer(pollInterval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-v.wake:
			case <-s.u.ctx.Done():
			}
			s.mu.Lock()
			if s.writers == 0 || s.unlinked || s.u.ctx.Err() != nil {
				v.polling = false
				s.closeFile()
				s.mu.Unlock()
				return
			}
			before := v.seen
			v.poll()
			v.findFull()
			now := time.Now()
			if v.seen != before {
				changed = now
			}
			s.mu.Unlock()
			pause := pollPause(now.Sub(changed))
			if pause > time.Second { // those that are quiet wake the daemon together
				pause = now.Add(pause).Truncate(time.Second).Sub(now)
			}
			t.Reset(pause)
		}
	})
}

func (v *polled) stopPolling() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

func (v *polled) poll() {
	if !v.s.file.isOpen() {
		return
	}
	info, err := backing.StatFd(v.s.file.fd())
	if err != nil || info.Stamp() == v.seen.Stamp() {
		return
	}
	before := v.seen
	v.seen = info
	v.changes++
	v.s.reportChange()
	if info.Size == before.Size && info.Mtime == before.Mtime && !v.unattended {
		return // a chmod, a rename, … or a store with the mtime put back
	}
	switch {
	case info.Size < before.Size:
		v.s.content.touchTargets(info.Size)
	case info.Size == before.Size:
		v.s.content.touchTargets(0) // it did not grow: bytes were overwritten
	}
	v.noteChange()
	v.s.content.size = info.Size
	v.shrink(info.Size)
	if v.unattended && v.s.writers == 0 && v.s.u.ctx.Err() == nil {
		v.s.interrupt(reasonOutlived)
	}
}

// noteChange counts a change that has already happened. mu is held.
func (v *polled) noteChange() {
	v.s.changed()
	v.s.content.gen++
	v.s.cond.Broadcast() // a commit under way is of another content now
}

func (v *polled) ownChange() {
	if !v.s.file.isOpen() {
		return
	}
	if info, err := backing.StatFd(v.s.file.fd()); err == nil {
		v.seen = info
		v.s.content.size = info.Size
		v.shrink(info.Size)
	}
	v.changes++
}

func (v *polled) epoch() uint64 { return v.changes }

func (v *polled) startRevision(size int64) { v.base, v.hole = size, size }

// shrink forgets what lay beyond size.
func (v *polled) shrink(size int64) { v.base, v.hole = min(v.base, size), min(v.hole, size) }

// mayHaveWritten counts every change since the open: which of several opens made
// it cannot be told.
func (v *polled) mayHaveWritten(w *Writer) bool {
	return w.wrote.Load() || v.s.content.gen != w.openedAt
}

func (v *polled) mayMap() { v.mappable = true }

func (v *polled) closedMapped() {
	if v.s.file.isOpen() {
		v.showStores()
	}
}

func (v *polled) metadataChanged(before, after backing.Info) {
	if v.seen.Stamp() == before.Stamp() {
		v.seen = after
	}
	v.changes++
}

func (v *polled) stamp() (backing.Stamp, bool) {
	if v.s.file.isOpen() {
		return v.seen.Stamp(), true // what the generation counts, and no later write
	}
	return told{v.s}.stamp()
}

func (v *polled) diskFull() bool { return backing.Full(v.s.file.f) }

func (v *polled) checkSize(backing.Info, *target) error { return nil } // poll takes the size as it is

// findFull takes for written what lies between the size at open and the first
// hole. mu is held.
func (v *polled) findFull() {
	s := v.s
	size := s.content.size
	if v.hole >= size || s.rec.State != state.Writing {
		return
	}
	// On tmpfs every call walks to the end of the file, so one is made only
	// when another chunk can have become full.
	if size/s.u.chunk == v.hole/s.u.chunk && size != s.prediction.size {
		return
	}
	hole, err := backing.FirstHole(s.file.fd(), v.hole)
	if err != nil || hole <= v.hole {
		return
	}
	from := v.hole
	v.hole = min(hole, size)
	s.content.written.add(from, v.hole)
	s.noteWritten(from, v.hole)
}

// beginCommit begins an epoch. A store through a mapping into a page that is
// dirty already is the one change that does not show from now on; while there is
// a mapping, [polled.watchMappings] sees to that. To write the file's pages back
// first would make it show, and would make the commit as slow as the disk. Where
// another writer may go on, the content is proven before anything is declared. mu is
// held, but not all the time.
func (v *polled) beginCommit(t *target, x *transfer) error {
	v.poll()
	if wait := coarseTick - time.Since(time.Unix(0, v.seen.Ctime)); wait > 0 && !backing.FineTimes() {
		v.s.unlocked(func() { time.Sleep(min(wait, coarseTick)) })
		v.poll()
	}
	v.changes++
	v.commit = v.changes
	var err error
	if s := v.s; s.put == nil && (t.size <= alwaysProven || s.writers > 1 || s.commits.retries > 0) {
		err = v.prove(t, x)
	}
	v.begun = v.seen
	return err
}

// noEpoch is no epoch that there has been.
const noEpoch = math.MaxUint64

// alwaysProven is the size in bytes up to which each content is proven: to read so
// much once more costs a commit nothing. Of a larger one only that which another
// handle can change.
const alwaysProven = api.MinPart

// prove takes the CRCs of the target's content, by parts and by what is hashed at
// once, for as long as the file is what it was at the close. mu is held, but not
// while it reads.
func (v *polled) prove(t *target, x *transfer) error {
	s := v.s
	ranges := append([]*part(nil), x.parts...)
	if s.u.opts.Checksum {
		ranges = append(ranges, cut(0, t.size, s.u.chunk)...)
	}
	file := s.file.f
	for _, p := range ranges {
		if _, known := t.proven[p.extent()]; known {
			continue
		}
		var crc uint32
		var whole bool
		var err error
		s.unlocked(func() { crc, whole, err = rangeCRC(x.life, file, p.off, p.n) })
		if err != nil {
			return err
		}
		if v.poll(); !whole || !v.isClose(t) {
			return nil
		}
		t.proven[p.extent()] = crc
	}
	return nil
}

// isClose reports whether size and times are those of the close, and so have been
// since.
func (v *polled) isClose(t *target) bool { return v.seen.Stamp() == t.seen.Stamp() }

func (v *polled) mark(t *target) { t.seen = v.seen }

// changedSince reports whether a change was seen since the close, or is under way.
func (v *polled) changedSince(t *target) bool {
	return v.s.content.gen != t.gen || len(v.s.content.pending) > 0
}

func (v *polled) whole(t *target) bool {
	return t.whole(v.changedSince(t), false, v.proves(t))
}

// proves reports whether each part's content, and the MD5, can be told from that of
// another content.
func (v *polled) proves(t *target) bool {
	s := v.s
	x := s.xfer
	return x != nil && x.spec.Bytes == t.size && t.proves(x.parts) &&
		(t.hashed || t.proves(cut(0, t.size, s.u.chunk)))
}

func (v *polled) current(p *part) bool {
	t := v.s.commits.target
	if t != nil {
		if crc, proven := t.proven[p.extent()]; proven {
			return p.crc == crc
		}
	}
	return !v.s.content.changedFor(t, p.off, p.off+p.n, p.gen)
}

// sent takes in what a part was sent with: the content of the close, if the file is
// still what it was, or else what is compared with it.
func (v *polled) sent(p *part) {
	v.poll()
	t := v.s.commits.target
	if t == nil || p.epoch < v.commit {
		return
	}
	crc, proven := t.proven[p.extent()]
	switch {
	case !proven && v.isClose(t):
		t.proven[p.extent()] = p.crc
	case !proven || p.crc == crc:
	case v.changedSince(t):
		t.foreign = true
	default:
		clear(t.proven) // a store that did not show: what is there now counts
	}
}

func (v *polled) hashed(t *target, read map[extent]uint32) bool {
	v.poll()
	if !v.changedSince(t) && v.seen == v.begun {
		return true
	}
	for _, p := range cut(0, t.size, v.s.u.chunk) {
		if crc, proven := t.proven[p.extent()]; !proven || crc != read[p.extent()] {
			return false
		}
	}
	return true
}

// rematch reads the parts that were sent at an earlier epoch once more. One that
// does not have the CRC-32C that it had when it was sent will be sent again. mu is
// held, but not while it reads.
func (v *polled) rematch(x *transfer) error {
	s := v.s
	t := s.commits.target
	for _, p := range x.parts {
		id, epoch := p.id, v.changes
		if id == "" || p.sending || p.epoch == epoch {
			continue
		}
		if crc, proven := t.proven[p.extent()]; proven && p.crc == crc {
			continue // matched
		}
		file, crc := s.file.f, p.crc
		var same bool
		var err error
		s.unlocked(func() { same, err = rangeMatches(x.ctx, file, p.off, p.n, crc) })
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

func (v *polled) matched(t *target, x *transfer) bool {
	now := !v.changedSince(t)
	v.checked = v.changes
	if !v.isClose(t) {
		v.checked = noEpoch
	}
	for _, p := range x.parts {
		crc, proven := t.proven[p.extent()]
		if !(proven && p.crc == crc) && !(now && p.epoch == v.changes) {
			return false
		}
	}
	return true
}

func (v *polled) recheckDigest(ctx context.Context, file *os.File) error {
	return v.s.digest.recheck(ctx, file)
}

func (v *polled) completed() (backing.Stamp, bool) {
	v.clean = v.checked
	return v.seen.Stamp(), true
}

// recheckCompleted lets a chmod, or an open without a write, upload nothing.
func (v *polled) recheckCompleted() {
	s := v.s
	if !s.file.isOpen() {
		return
	}
	v.poll()
	epoch := v.changes
	if epoch == v.clean || s.rec.State != state.Completed || s.uncommitted() {
		return
	}
	s.file.uses++
	same, _ := s.completedMatches(s.u.ctx) // what cannot be read does not match
	s.closeFile()
	switch {
	case s.rec.State != state.Completed:
	case same:
		v.clean = epoch
	default:
		v.noteChange()
	}
}

func (v *polled) writersGone() {
	// A mapping can still change the file. To the next mount it is open.
	if !v.watching && backing.HasWriter(v.s.file.f) != backing.Yes {
		v.noWriterLeft()
		return
	}
	v.s.rec.Open = true
	v.s.save()
	if !v.watching {
		v.watchMappings()
	}
}

// noWriterLeft follows the end of the last writer and of the last mapping. mu is held.
func (v *polled) noWriterLeft() {
	s := v.s
	v.poll()
	s.rec.Open = false
	s.lastClosed()
	if v.mappable {
		v.recheckDue = true
		v.commitsEnded()
	}
}

// watchMappings polls the backing file after the last RELEASE, while a shared
// mapping can still modify it: in passthrough the mapping is of the backing file,
// and the kernel does not tell when it ends. What it changed is then committed,
// as at any release. mu is held.
func (v *polled) watchMappings() {
	s := v.s
	if s.u.ctx.Err() != nil {
		return
	}
	s.file.uses++ // until no mapping is left
	s.u.wg.Go(func() {
		s.u.pollWhile(v.stillMapped)
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.unlinked && s.writers == 0 && s.u.ctx.Err() == nil {
			v.noWriterLeft()
		}
		s.closeFile()
	})
}

// pollWhile returns when still reports false. It asks every [mappingPollInterval].
func (u *Uploader) pollWhile(still func() bool) {
	t := time.NewTicker(mappingPollInterval)
	defer t.Stop()
	for still() {
		select {
		case <-t.C:
		case <-u.ctx.Done():
		}
	}
}

// commitsEnded starts what had to wait for the end of a commit. Until then the file is
// not kept open for it.
func (v *polled) commitsEnded() {
	s := v.s
	if !v.recheckDue || s.commits.running || s.unlinked || s.u.ctx.Err() != nil || s.openFile() != nil {
		return
	}
	v.recheckDue = false
	s.u.wg.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		defer s.closeFile()
		v.recheckAfterMapping()
	})
}

// recheckAfterMapping finds out whether a mapping, which is gone, has changed the
// content while it was committed or since. That shows nowhere else: the mapping
// may have gone before the daemon could see it. mu is held, but not while it reads.
func (v *polled) recheckAfterMapping() {
	s := v.s
	if s.commits.running {
		v.recheckDue = true
		return
	}
	v.mappable = s.writers > 0
	v.changes++
	v.recheckCompleted()
	if !s.unlinked && s.writers == 0 && s.u.ctx.Err() == nil && s.uncommitted() {
		s.lastClosed()
	}
}

// stillMapped reports whether a mapping can still change the file, which has no
// writer, and makes its next store into any page show.
func (v *polled) stillMapped() bool {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unlinked || s.writers > 0 || s.u.ctx.Err() != nil || backing.HasWriter(s.file.f) != backing.Yes {
		return false // with a writer, the next release looks again
	}
	v.showStores()
	return true
}

// showStores takes in what changed, and makes the next store into any page show.
func (v *polled) showStores() {
	if err := backing.StartWriteback(v.s.file.f); err != nil {
		v.s.u.log.Error("cannot see what a mapping changes", "path", v.s.rec.Path, "error", err)
	}
	v.poll()
	v.changes++
}
