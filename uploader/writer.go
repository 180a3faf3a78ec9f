package uploader

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync/atomic"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// Writer is one open of a file that may change it. The kernel's side of the
// mount tells through it what happens to the content, and what a close means.
// All methods may be called concurrently, but none after Close.
type Writer struct {
	s        *session
	wrote    atomic.Bool // this open has changed the content
	openedAt uint64      // the generation at this open
}

// OpenWriter registers an open of the regular file with this key, whose name is
// path. file is the backing file open for reading; it stays the caller's, and is
// duplicated. The journal knows of the open before OpenWriter returns; when it
// cannot be told (a full disk), the open must fail with the error. It also knows how
// the open has come by the file.
func (u *Uploader) OpenWriter(key backing.Key, path string, file *os.File, from Origin) (*Writer, error) {
	return u.openWriter(key, path, file, from, false)
}

// OpenPolledWriter is OpenWriter for an open whose writes the kernel makes by
// itself (passthrough). file must be open for reading only: a descriptor of the
// daemon's that could write would hide whether another one can.
func (u *Uploader) OpenPolledWriter(key backing.Key, path string, file *os.File, from Origin) (*Writer, error) {
	return u.openWriter(key, path, file, from, true)
}

func (u *Uploader) openWriter(key backing.Key, path string, file *os.File, from Origin, poll bool) (*Writer, error) {
	s, err := u.refKey(key, path)
	if err != nil {
		return nil, err
	}
	defer u.unref(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := backing.StatFd(int(file.Fd()))
	if err != nil {
		return nil, api.LocalError("stat", err)
	}
	if info.Nlink == 0 {
		s.unlinked = true // open through /proc: it will never have a name
	}
	if err := s.adoptFile(file); err != nil {
		return nil, err
	}
	if from.temporary(path) {
		s.rec.Temporary = true // recorded with the open
		s.publish()
	}
	if s.writers == 0 {
		if err := s.firstWriter(info); err != nil {
			s.closeFile()
			return nil, err
		}
	}
	if poll {
		if err := s.pollFrom(); err != nil {
			s.closeFile()
			return nil, err
		}
	}
	s.writers++
	return &Writer{s: s, openedAt: s.content.gen}, nil
}

// firstWriter prepares the session for an open while it has no other. mu is held.
func (s *session) firstWriter(info backing.Info) error {
	v, polls := s.observer.(*polled)
	if !polls && !s.commits.running {
		s.content.size = info.Size
	}
	if polls {
		v.takeOver()
	}
	if !s.rec.Open && !s.unlinked {
		s.rec.Open = true
		if err := s.u.journal.Put(&s.rec); err != nil {
			s.rec.Open = false
			return err
		}
	}
	s.stopDeferring()
	s.resumed = false
	return nil
}

// pollFrom lets the session observe its file by polling from now on. mu is held.
func (s *session) pollFrom() error {
	v, polls := s.observer.(*polled)
	if !polls {
		var err error
		if v, err = newPolled(s); err != nil {
			return err
		}
		s.observer = v
		for _, t := range s.content.targets {
			if !v.changedSince(t) {
				v.mark(t) // until now every change was told
			}
		}
	}
	if s.writers == 0 {
		v.startPolling()
	}
	return nil
}

// Change surrounds a change of [off, off+n) other than a write of data that a
// program has already been told is done: fallocate that zeroes or punches,
// copy_file_range. do makes the change and returns how many bytes from off on it
// concerned.
func (w *Writer) Change(off, n int64, do func() (int64, error)) (int64, error) {
	return w.change(off, n, nil, do, nil)
}

// Write is Change for a WRITE of data by the kernel. In write-back the program was told
// long ago that it had succeeded. After a failure the content is not sent, and
// every close and fsync says why, until the range is written again or truncated
// away.
func (w *Writer) Write(off int64, data []byte, do func() (int64, error)) (int64, error) {
	n := int64(len(data))
	return w.change(off, n, data, do, func(done int64, err error) {
		w.s.lose(off+done, off+n, err)
	})
}

// lose records that [off, end) is missing after a failed write. mu is held.
func (s *session) lose(off, end int64, err error) {
	s.lost.add(off, end, &api.Error{Op: "write", Kind: api.Damaged, Err: err, Message: fmt.Sprintf(
		"%v: bytes %d to %d are missing; write them again, or write the file anew", err, off, end)})
	if !s.unlinked && s.u.ctx.Err() == nil {
		s.move(state.Failed, s.lost.err)
	}
	s.commits.next = nil
	s.settling.reset()
	s.answerRest(s.lost.err)
}

// change is Change, and Write where there is data.
func (w *Writer) change(off, n int64, data []byte, do func() (int64, error), failed func(done int64, err error)) (int64, error) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		if failed != nil {
			s.changed()
			s.content.touch(off, off+n)
			failed(0, err)
		}
		return 0, err
	}
	from := s.firstDifference(off, data)
	w.begin(from, off+n)

	var done int64
	var err error
	s.unlocked(func() { done, err = do() })

	defer s.observer.ownChange()
	w.end(from)
	if done > 0 {
		s.content.wrote(from, off+done)
		s.clearLost(off, off+done)
		s.noteWritten(off, off+done)
	}
	if err != nil {
		s.content.touch(off+done, off+n) // it may have got further than it says
		if failed != nil {
			failed(done, err)
		}
	}
	return done, err
}

// firstDifference is where a write of data at off begins to change the file. The
// kernel writes whole pages back: an append comes with the bytes before it in the
// page, which are those of the file. Only up to the end of the content that it may
// leave as it is they are compared. mu is held.
func (s *session) firstDifference(off int64, data []byte) int64 {
	end := off + int64(len(data))
	to := off
	if size := s.content.size; size < end {
		to = max(to, size)
	}
	for _, t := range s.content.targets {
		if t.size < end {
			to = max(to, t.size)
		}
	}
	buf := make([]byte, to-off)
	if _, err := s.file.f.ReadAt(buf, off); err != nil {
		return off
	}
	for i := range buf {
		if buf[i] != data[i] {
			return off + int64(i)
		}
	}
	return to
}

// begin counts a change of [off, end) that is about to happen. mu is held.
func (w *Writer) begin(off, end int64) {
	w.wrote.Store(true)
	w.s.content.begin(off, end)
}

// end follows a change, before it is counted again. The close of another handle
// may have spoken of the content while it was changing; that was not of what it
// is now, which no close has spoken of. mu is held.
func (w *Writer) end(off int64) {
	s := w.s
	s.content.end(off)
	s.changed()
}

// Resize surrounds a change of the file's size to size bytes: ftruncate, and
// fallocate that extends.
func (w *Writer) Resize(size int64, do func() error) error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer.poll()
	if size == s.content.size && !s.lost.any() {
		// O_TRUNC of an empty file, the kernel's own size again: no change.
		var err error
		s.unlocked(func() { err = do() })
		return err
	}
	if err := s.change(); err != nil {
		return err
	}
	before := s.content.size
	w.begin(min(size, before), max(size, before))

	var err error
	s.unlocked(func() { err = do() })

	defer s.observer.ownChange()
	w.end(min(size, before))
	if err != nil {
		s.content.touch(min(size, before), max(size, before))
		return err
	}
	if size < s.content.size {
		s.prediction.reset()
		s.content.revision++ // what is being asked about the size is about another content
	}
	s.content.resize(size)
	s.clearLost(size, math.MaxInt64)
	return nil
}

// SetPredictor gives the session the predictor of the size that the file will
// have. The last one given counts; nil changes nothing.
func (w *Writer) SetPredictor(p SizePredictor) {
	if p == nil {
		return
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.prediction.predictor = p
}

// Dirty reports whether a close of this handle has anything to wait for: content
// of which no close has spoken, or content with what this handle wrote whose
// commit is still under way.
func (w *Writer) Dirty() bool {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer.recheckCompleted()
	return !s.unlinked && (s.uncommitted() || s.observer.mayHaveWritten(w) && s.commits.running)
}

// Mappable says that a mapping made through this open may change the file: it is
// open for reading and for writing (mmap(2), PROT_WRITE with MAP_SHARED). Only in
// passthrough does it make a difference.
func (w *Writer) Mappable() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.observer.mayMap()
}

// Excluded reports whether the file's name is one that is never sent.
func (w *Writer) Excluded() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.nameClass() == nameExcluded
}

// Err is the error that stands for the content as it is now, nil if there is none.
func (w *Writer) Err() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.standingError()
}

// Lost is the error of a failed write whose bytes are still missing, for fsync.
func (w *Writer) Lost() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.lost.err
}

// SendFull sends what is surely finished, without committing: this close is not
// the content's last. Where another close waits already, it may be this one that
// it waits for, and the content is committed as it is.
func (w *Writer) SendFull() {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.commits.waiters) > 0 || s.u.ctx.Err() != nil {
		s.requestCommit()
		return
	}
	s.hashAhead()
	s.pump()
}

// Interrupt marks the content as half-written: its writer was killed. It stays
// and is named, and is not sent until the user says so.
func (w *Writer) Interrupt(reason string) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer.poll()
	s.interruptUncommitted(reason)
}

// interruptUncommitted interrupts content of which no close has spoken. mu is held.
func (s *session) interruptUncommitted(reason string) {
	if !s.unlinked && s.uncommitted() && !s.lost.any() {
		s.interrupt(reason)
	}
}

// CloseMapped follows a close by a program that can still change the content through a
// mapping: nothing is committed. It returns what the content was, for InterruptChanged.
func (w *Writer) CloseMapped() (closed uint64) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer.closedMapped()
	s.hashAhead()
	s.pump()
	return s.content.gen
}

// InterruptChanged is Interrupt, unless the content is what it was at that
// [Writer.CloseMapped].
func (w *Writer) InterruptChanged(closed uint64, reason string) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer.poll()
	if s.content.gen != closed && s.u.ctx.Err() == nil {
		s.interruptUncommitted(reason)
	}
}

// CommitLater asks for the content to be committed and does not wait.
func (w *Writer) CommitLater() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.requestCommit()
}

// Commit asks for the content to be committed and waits until the File exists,
// or never will. The error's [api.Kind] says why. ctx bounds the waiting and never
// the upload: when it ends, so does Commit, with its cause. Without one
// acknowledged byte for Options.CloseTimeout it is context.DeadlineExceeded.
func (w *Writer) Commit(ctx context.Context) error {
	s := w.s
	s.mu.Lock()
	gen, answered, err := s.requestCommit()
	if answered {
		s.mu.Unlock()
		return err
	}
	wait := s.commits.newWaiter(gen)
	s.sendSettling()
	s.mu.Unlock()
	return s.wait(ctx, wait, s.u.opts.CloseTimeout)
}

// Close ends the open: no call of the kernel's can change the content through it
// any more. Content of which no close has spoken (a mapping that outlived its
// descriptor) is committed in the background.
func (w *Writer) Close() {
	s, u := w.s, w.s.u
	u.ref(s)
	defer u.unref(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.closeFile()
	s.writers--
	if s.writers > 0 {
		// A handle stays open while its close waits. When no others are
		// left, no later close will speak of what has changed since.
		if s.uncommitted() && !s.lost.any() && s.writers <= len(s.commits.waiters) {
			s.requestCommit()
		}
		return
	}
	s.rec.Open, s.prediction.predictor = false, nil
	s.observer.stopPolling()
	switch {
	case s.unlinked:
		s.dropTransfer(errUnlinked)
	case s.u.ctx.Err() != nil:
		// The journal is closed; to the next daemon it was open to the end.
	default:
		s.observer.writersGone()
	}
}
