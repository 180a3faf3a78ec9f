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
	s     *session
	wrote atomic.Bool // this open has changed the content
	since uint64      // of a blind session: the generation at this open
}

// OpenWriter registers an open of the regular file with this key, whose name is
// path. file is the backing file open for reading; it stays the caller's, and is
// duplicated. The journal knows of the open before OpenWriter returns; when it
// cannot be told (a full disk), the open must fail with the error.
func (u *Uploader) OpenWriter(key backing.Key, path string, file *os.File) (*Writer, error) {
	return u.openWriter(key, path, file, false)
}

// OpenBlindWriter is OpenWriter for an open whose writes the kernel makes by
// itself (passthrough). file must be open for reading only: while the daemon
// itself could write, nobody could tell whether somebody else can.
func (u *Uploader) OpenBlindWriter(key backing.Key, path string, file *os.File) (*Writer, error) {
	return u.openWriter(key, path, file, true)
}

func (u *Uploader) openWriter(key backing.Key, path string, file *os.File, blind bool) (*Writer, error) {
	s, err := u.pin(key, path)
	if err != nil {
		return nil, err
	}
	defer u.unpin(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := backing.StatFd(int(file.Fd()))
	if err != nil {
		return nil, api.LocalError("stat", err)
	}
	if info.Nlink == 0 {
		s.gone = true // open through /proc: it will never have a name
	}
	if err := s.adopt(file); err != nil {
		return nil, err
	}
	if s.writers == 0 {
		if s.running == nil && s.sight == nil {
			s.content.size = info.Size
		}
		if !s.rec.Open && !s.gone {
			s.rec.Open = true
			if err := u.journal.Put(&s.rec); err != nil {
				s.rec.Open = false
				s.unhold()
				return nil, err
			}
		}
		if s.held != nil {
			s.held.Stop()
		}
	}
	if blind {
		if s.sight, err = s.sight.open(s); err != nil {
			s.unhold()
			return nil, err
		}
	}
	s.writers++
	return &Writer{s: s, since: s.content.gen}, nil
}

// Change surrounds a change of [off, off+n) other than a write of data that a
// program has already been told is done: fallocate that zeroes or punches,
// copy_file_range. do makes the change and returns how many bytes from off on it
// concerned.
func (w *Writer) Change(off, n int64, do func() (int64, error)) (int64, error) {
	return w.change(off, n, do, nil)
}

// Write is Change for a WRITE of the kernel's. In write-back the program was
// told long ago that it had succeeded, so a failure poisons the content: it is
// not sent, and every close and fsync says why, until the range is written again
// or truncated away.
func (w *Writer) Write(off, n int64, do func() (int64, error)) (int64, error) {
	return w.change(off, n, do, func(done int64, err error) {
		s := w.s
		s.poison.add(off+done, off+n)
		s.lost = &api.Error{Op: "write", Kind: api.Damaged, Err: err, Message: fmt.Sprintf(
			"%v: bytes %d to %d are missing; write them again, or write the file anew", err, off+done, off+n)}
		if !s.gone && s.u.ctx.Err() == nil {
			s.move(state.Failed, s.lost)
		}
		s.answer(s.content.gen, s.lost)
	})
}

func (w *Writer) change(off, n int64, do func() (int64, error), failed func(done int64, err error)) (int64, error) {
	s := w.s
	s.mu.Lock()
	if err := s.change(); err != nil {
		if failed != nil {
			s.changed()
			s.content.touch(off, off+n)
			failed(0, err)
		}
		s.mu.Unlock()
		return 0, err
	}
	w.begin(off, off+n)
	s.mu.Unlock()

	done, err := do()

	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changedByUs()
	w.end()
	if done > 0 {
		s.content.wrote(off, off+done)
		s.heal(off, off+done)
		s.noteWritten(off, off+done)
	}
	if err != nil {
		s.content.touch(off+done, off+n) // nobody knows how far it got
		if failed != nil {
			failed(done, err)
		}
	}
	return done, err
}

// begin counts a change of [off, end) that is about to happen. mu is held.
func (w *Writer) begin(off, end int64) {
	w.wrote.Store(true)
	w.s.content.touch(off, end)
	w.s.content.pending++
}

// end follows a change, before it is counted again. The close of another handle
// may have spoken of the content while it was changing; that was not of what it
// is now, which no close has spoken of. mu is held.
func (w *Writer) end() {
	s := w.s
	s.content.pending--
	s.changed()
}

// Resize surrounds a change of the file's size to size bytes: ftruncate, and
// fallocate that extends.
func (w *Writer) Resize(size int64, do func() error) error {
	s := w.s
	s.mu.Lock()
	s.look()
	if size == s.content.size && len(s.poison) == 0 {
		s.mu.Unlock()
		return do() // O_TRUNC of an empty file, the kernel's own size again: no change
	}
	if err := s.change(); err != nil {
		s.mu.Unlock()
		return err
	}
	before := s.content.size
	w.begin(min(size, before), max(size, before))
	s.mu.Unlock()

	err := do()

	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changedByUs()
	w.end()
	if err != nil {
		s.content.touch(min(size, before), max(size, before))
		return err
	}
	if size < s.content.size {
		clear(s.full)
		clear(s.confirmed)
		s.expected, s.guessed = 0, false
		s.cycle++ // what is being asked about the size is about another content
	}
	s.content.resize(size)
	s.heal(size, math.MaxInt64)
	return nil
}

// heal takes a range that has been written or truncated away out of what failed
// writes have left missing. mu is held.
func (s *session) heal(off, end int64) {
	if len(s.poison) == 0 {
		return
	}
	if s.poison.remove(off, end); len(s.poison) > 0 {
		return
	}
	s.lost = nil
	if s.rec.State == state.Failed {
		s.move(state.Writing, nil)
	}
}

// Expect gives the session somebody to ask how large the file will be. The last
// one given counts; nil changes nothing.
func (w *Writer) Expect(oracle SizeOracle) {
	if oracle == nil {
		return
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.oracle = oracle
}

// Dirty reports whether a close of this handle has anything to wait for: content
// that no close has spoken of, or that one has and whose commit, with what this
// handle wrote, is still under way.
func (w *Writer) Dirty() bool {
	w.s.settleDoubt()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return !w.s.gone && (w.s.content.gen != w.s.asked || w.mayHaveWritten() && w.s.running != nil)
}

// mayHaveWritten reports whether this open has changed the content. Of a blind one
// nobody can say which of several that are open has. mu is held.
func (w *Writer) mayHaveWritten() bool {
	return w.wrote.Load() || w.s.sight != nil && w.s.content.gen != w.since
}

// Mappable says that a mapping made through this open may change the file: it is
// open for reading and for writing (mmap(2), PROT_WRITE with MAP_SHARED). Only in
// passthrough does it make a difference.
func (w *Writer) Mappable() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.sight != nil {
		w.s.sight.mappable = true
	}
}

// Err is the error that stands for the content as it is now, nil if there is none.
func (w *Writer) Err() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.standing()
}

// Lost is the error of a failed write that nothing has made good, for fsync.
func (w *Writer) Lost() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.lost
}

// SendFull sends what is surely finished, without committing: this close is not
// the content's last. Where another close waits already, it may be this one that
// it waits for, and the content is committed as it is.
func (w *Writer) SendFull() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if len(w.s.waiters) > 0 || w.s.u.ctx.Err() != nil {
		w.s.ask()
		return
	}
	w.s.digestAhead()
	w.s.pump()
}

// Interrupt marks the content as half-written: its writer was killed. It stays
// and is named, and is not sent until somebody says so.
func (w *Writer) Interrupt(reason string) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.look()
	if w.s.gone || w.s.content.gen == w.s.asked || len(w.s.poison) > 0 {
		return
	}
	w.s.interrupt(reason)
}

// interrupt is Interrupt for whoever holds mu.
func (s *session) interrupt(reason string) {
	s.asked = s.content.gen
	s.rec.Size = s.content.size
	cause := &api.Error{Kind: api.Interrupted, Message: reason + "; `uploadfs retry` sends it as it is"}
	s.move(state.Interrupted, cause)
	s.answer(s.content.gen, cause)
}

// CommitLater asks for the content to be committed and does not wait.
func (w *Writer) CommitLater() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.ask()
}

// Commit asks for the content to be committed and waits until the File exists,
// or never will. The error's [Kind] says why. ctx bounds the waiting and never
// the upload: when it ends, so does Commit, with its cause. Without one
// acknowledged byte for Options.CloseTimeout it is context.DeadlineExceeded.
func (w *Writer) Commit(ctx context.Context) error {
	s := w.s
	s.mu.Lock()
	gen, settled, err := s.ask()
	if settled {
		s.mu.Unlock()
		return err
	}
	wait := &waiter{gen: gen, done: make(chan error, 1)}
	s.waiters[wait] = true
	s.mu.Unlock()
	return s.wait(ctx, wait, s.u.opts.CloseTimeout)
}

// Close ends the open: no call of the kernel's can change the content through it
// any more. Content that no close has spoken of (a mapping that outlived its
// descriptor) is committed in the background.
func (w *Writer) Close() {
	s, u := w.s, w.s.u
	u.repin(s)
	defer u.unpin(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.unhold()
	s.writers--
	if s.writers > 0 {
		// A handle stays open while its close waits. When no others are
		// left, no later close will speak of what has changed since.
		if s.unspoken() && s.writers <= len(s.waiters) {
			s.ask()
		}
		return
	}
	s.rec.Open, s.oracle = false, nil
	switch {
	case s.gone:
		s.dropTransfer(errGone)
	case s.u.ctx.Err() != nil:
		// The journal is closed; to the next daemon it was open to the end.
	case s.sight != nil:
		s.save()
		s.outlive()
	default:
		s.released()
	}
}

// unspoken reports whether there is content that no close has spoken of, and that
// can be sent. mu is held.
func (s *session) unspoken() bool { return s.content.gen != s.asked && len(s.poison) == 0 }

// released does what the last release of a file asks for, once nothing can change
// its content any more. mu is held.
func (s *session) released() {
	switch {
	case s.unspoken():
		s.ask() // saves
	case s.rec.State == state.Held:
		s.armHold()
		s.save()
	default:
		s.renamed() // it may have got another name while it was open
		s.save()
	}
}
