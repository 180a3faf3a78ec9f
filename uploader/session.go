package uploader

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// session is one backing file's life from its first write to completed, whatever
// names the file has meanwhile. It is in memory while it has a writer or work;
// what has to survive is in rec and in the journal.
type session struct {
	u      *Uploader
	key    backing.Key
	status atomic.Pointer[Status] // the last one published; readers never lock

	mu   sync.Mutex // guards everything below; never held during a Backend call
	cond *sync.Cond // on mu: something that a commit waits for has moved on

	rec     journal.Record
	writers int  // open handles that may change the file
	gone    bool // it has no name left: nothing of it is sent any more
	pinned  int  // calls that use the session right now, so that it stays in the table

	file    *os.File // the backing file, while refs > 0
	refs    int
	content content
	began   time.Time        // the first change of this content
	cycle   int              // counts contents: one begins with the first change after a settled one
	full    map[int64]bool   // by chunk: nothing in it is unwritten
	poison  extents          // ranges whose write failed and that nothing has replaced
	lost    error            // the errno of that failure
	digest  digest           // MD5 of content, in file order
	hashing bool             // digestAhead is at work
	held    *time.Timer      // sends a held file that nobody renames
	waiters map[*waiter]bool // closes that wait for a commit

	put *api.Spec // what a file without a tree is declared as; else nil, and its attributes say

	sight   *sight // of a blind session, whose writes the kernel makes by itself; else nil
	watched bool   // watch is at work

	oracle    SizeOracle
	expected  int64          // the size that the content is thought to get; 0 unknown
	confirmed map[int64]bool // by chunk: the size was asked for with this chunk full
	learning  bool           // learn is at work
	guessed   bool           // the size cannot be told: do not ask again for this content

	xfer     *transfer // the Upload that the content goes to; nil while there is none
	running  *run      // the commit under way
	asked    uint64    // the generation that the last close spoke of
	insisted bool      // somebody wants it sent even if there may be a File already
	next     time.Time // while retrying: the next attempt
	lastAck  time.Time // when the API last acknowledged bytes of this content
}

// waiter is a close that waits until its generation is settled.
type waiter struct {
	gen  uint64
	done chan error // buffered; receives once
}

func newSession(u *Uploader, key backing.Key) *session {
	s := &session{
		u: u, key: key,
		rec:       journal.Record{Key: key, State: state.Empty, Since: time.Now()},
		content:   content{block: u.block},
		digest:    digest{block: u.chunk},
		full:      map[int64]bool{},
		confirmed: map[int64]bool{},
		waiters:   map[*waiter]bool{},
	}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// hold makes s.file usable until unhold, opening it if nobody has it open. mu is held.
func (s *session) hold() error {
	if s.refs == 0 {
		f, err := s.u.tree.OpenKey(s.key, s.rec.Path)
		if err != nil {
			return api.LocalError("open", err)
		}
		s.file = f
	}
	s.refs++
	return nil
}

// adopt is hold for a caller that has the file open: its descriptor is
// duplicated, which needs no name and no permission. mu is held.
func (s *session) adopt(f *os.File) error {
	if s.refs == 0 {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return api.LocalError("dup", err)
		}
		s.file = os.NewFile(uintptr(fd), f.Name())
	}
	s.refs++
	return nil
}

// unhold ends a hold. The descriptor goes with the last one: kept on a deleted
// file it would keep its pages too. mu is held.
func (s *session) unhold() {
	if s.refs--; s.refs > 0 {
		return
	}
	s.file.Close()
	s.file = nil
	if s.u.ctx.Err() != nil {
		return
	}
	// This may have been the last thing that kept the session in the table,
	// whose lock comes before ours.
	s.u.wg.Go(func() {
		s.u.repin(s)
		s.u.unpin(s)
	})
}

// move brings the session into another state, for the reason cause (nil where
// the state needs none), and into the journal before anybody sees it. mu is held.
func (s *session) move(to state.State, cause error) {
	if from := s.rec.State; from != to {
		if !from.CanBecome(to) {
			s.u.log.Error("illegal change of state", "path", s.rec.Path, "from", from, "to", to)
		}
		s.rec.State, s.rec.Since = to, time.Now()
	}
	s.rec.Err, s.rec.Kind = api.OneLine(cause), api.Transient
	if cause != nil {
		s.rec.Kind = api.KindOf(cause)
	}
	s.save()
	s.publish()
}

// save writes the record to the journal. A failure is logged and not more: the
// effect that the record protects has happened at the API, and forgetting it
// costs sending it again, not the content. mu is held.
func (s *session) save() {
	if s.gone {
		return
	}
	s.recorded(s.u.journal.Put(&s.rec))
}

// recorded logs that the journal could not be told of something. mu is held.
func (s *session) recorded(err error) {
	if err != nil {
		s.u.log.Error("not recorded", "path", s.rec.Path, "state", s.rec.State, "error", err)
	}
}

// publish makes what is known now the status that everybody reads. mu is held.
func (s *session) publish() {
	s.status.Store(statusOf(&s.rec, s.xfer, s.next))
}

// change is called before every change of content. The first one since the
// content was settled takes its results away and tells the journal, which is why
// it may fail, and then the change must not happen. mu is held.
func (s *session) change() error {
	if s.changing() {
		return nil
	}
	if s.u.ctx.Err() != nil {
		return context.Cause(s.u.ctx) // the journal cannot be told
	}
	before := s.rec
	s.unsettle()
	if err := s.u.journal.Put(&s.rec); err != nil {
		s.rec = before
		return err
	}
	s.publish()
	return nil
}

// changed is change for what has happened already, or what a program has been
// told of as done. That the file is open is in the journal, so a crash leaves it
// interrupted even if the journal cannot be told now. mu is held.
func (s *session) changed() {
	if s.changing() || s.u.ctx.Err() != nil {
		return
	}
	s.unsettle()
	s.save()
	s.publish()
}

// changing reports whether the journal knows of changes already, or need not. mu
// is held.
func (s *session) changing() bool {
	return s.gone || s.rec.State == state.Writing || len(s.poison) > 0
}

// unsettle makes the record that of a content that changes. mu is held.
func (s *session) unsettle() {
	if s.held != nil {
		s.held.Stop()
		s.held = nil
	}
	if s.running == nil || s.rec.FileID != "" {
		// A new content. While a commit is under way it is an edit of
		// the old one, and the parts that do not change still serve.
		s.began = time.Now()
		s.cycle++
		s.full, s.confirmed = map[int64]bool{}, map[int64]bool{}
		s.expected, s.guessed = 0, false
		if s.sight != nil {
			s.sight.begin(s.content.size)
		}
	}
	if s.rec.FileID != "" {
		s.rec.Superseded = append(s.rec.Superseded[:len(s.rec.Superseded):len(s.rec.Superseded)], s.rec.FileID)
		s.rec.FileID, s.rec.MD5 = "", ""
	}
	if s.xfer == nil {
		s.rec.Spec, s.rec.Upload, s.rec.CreatedAt = api.Spec{}, api.Upload{}, time.Time{}
		s.rec.Parts = nil
	}
	if s.rec.Completing && s.running == nil && s.xfer != nil {
		s.xfer.end(errors.New("nobody knows whether it is a File already")) // it may take no more parts
	}
	s.rec.Completing = false // whatever comes of it is not this content's
	s.rec.State, s.rec.Since = state.Writing, time.Now()
	s.rec.Err, s.rec.Kind = "", api.Transient
}

// ask decides what a close means for the content as it is now: the one place
// that says whether, and when, it is committed. It returns the generation to wait
// for, or settled and the answer. mu is held.
func (s *session) ask() (gen uint64, settled bool, err error) {
	s.look()
	gen = s.content.gen
	s.rec.Size = s.content.size
	switch {
	case s.gone:
		return gen, true, nil
	case len(s.poison) > 0:
		return gen, true, s.lost
	case s.u.ctx.Err() != nil:
		return gen, true, context.Cause(s.u.ctx)
	case gen == s.asked:
		// In other states a commit may be winding down, but without an
		// answer for anybody.
		return gen, !s.rec.State.Committing(), s.standing()
	}
	s.asked = gen
	switch {
	case s.content.size == 0:
		s.dropTransfer(errors.New("emptied"))
		s.settle(state.Empty, nil)
	case s.sight != nil && backing.Full(s.file):
		s.interrupt("the disk is full, and of a write that failed only its program has heard")
		return gen, true, api.LocalError("close", unix.ENOSPC)
	case s.u.names.excluded(s.rec.Path):
		s.dropTransfer(errors.New("excluded"))
		s.settle(state.Excluded, nil)
	case s.u.names.held(s.rec.Path):
		s.settle(state.Held, nil)
		s.armHold()
	case s.content.size > api.MaxUpload:
		err := &api.Error{Op: "close", Kind: api.TooLarge, Message: "larger than 8 GiB, which is the most that an Upload can hold; the file stays here"}
		s.settle(state.Failed, err)
		return gen, true, err
	default:
		s.move(state.Uploading, nil)
		s.start()
		return gen, false, nil
	}
	return gen, true, nil
}

// settle ends a content without the API: nothing of it is to be sent now.
func (s *session) settle(to state.State, cause error) {
	s.content.settle()
	s.move(to, cause)
	s.answer(s.content.gen, cause)
}

// standing is the error that holds for the content as it is: of failed and
// interrupted ones. mu is held.
func (s *session) standing() error {
	if s.lost != nil && len(s.poison) > 0 {
		return s.lost
	}
	if s.rec.State == state.Failed || s.rec.State == state.Interrupted {
		return &api.Error{Kind: s.rec.Kind, UploadID: s.rec.Upload.ID, Message: s.rec.Err}
	}
	return nil
}

// answer tells every close that waits for gen or an earlier generation. mu is held.
func (s *session) answer(gen uint64, err error) {
	for w := range s.waiters {
		if w.gen <= gen {
			w.done <- err
			delete(s.waiters, w)
		}
	}
	s.cond.Broadcast()
}

// wait waits until gen is settled. ctx bounds the waiting and not the upload, as
// does timeout: so long without one acknowledged byte, or for ever if 0.
func (s *session) wait(ctx context.Context, w *waiter, timeout time.Duration) error {
	defer func() {
		s.mu.Lock()
		delete(s.waiters, w)
		s.mu.Unlock()
	}()
	var expired <-chan time.Time
	started := time.Now()
	if timeout > 0 {
		t := time.NewTicker(max(timeout/20, time.Millisecond))
		defer t.Stop()
		expired = t.C
	}
	for {
		select {
		case err := <-w.done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-expired:
			s.mu.Lock()
			since := s.lastAck
			s.mu.Unlock()
			if since.Before(started) {
				since = started
			}
			if now.Sub(since) >= timeout {
				return context.DeadlineExceeded
			}
		}
	}
}

// armHold starts the time after which a held file is sent under the name it
// has, counted from its last close. mu is held.
func (s *session) armHold() {
	if s.writers > 0 {
		return
	}
	if s.held != nil {
		s.held.Stop()
	}
	s.held = time.AfterFunc(s.u.names.HoldFor, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.release()
	})
}

// release sends a held file. mu is held.
func (s *session) release() {
	if s.rec.State != state.Held || s.gone || s.u.ctx.Err() != nil {
		return
	}
	s.move(state.Uploading, nil)
	s.start()
}

// renamed looks at the name that the file has now: a held or excluded file with
// a final name is sent. mu is held.
func (s *session) renamed() {
	if s.rec.State != state.Held && s.rec.State != state.Excluded || s.gone || s.u.ctx.Err() != nil {
		return
	}
	to := state.Uploading
	switch {
	case s.writers > 0:
		return // the close will see to it
	case s.u.names.excluded(s.rec.Path):
		to = state.Excluded
	case s.u.names.held(s.rec.Path):
		to = state.Held
	}
	switch {
	case to == s.rec.State:
	case to == state.Uploading:
		s.move(to, nil)
		s.start()
	default:
		s.move(to, nil)
		if to == state.Held {
			s.armHold()
		}
	}
}

// born gives a file that had no name (O_TMPFILE) its life in the journal: its
// first name. mu is held.
func (s *session) born() {
	s.gone = false
	s.rec.Open = s.writers > 0
	if s.content.gen == s.asked {
		return
	}
	s.rec.State, s.rec.Since = state.Writing, time.Now()
	switch {
	case len(s.poison) > 0:
		s.move(state.Failed, s.lost)
	case s.writers == 0:
		s.ask()
	}
}

// digestAhead hashes in the background what is full from the file's start on, so
// that little is left at close. mu is held.
func (s *session) digestAhead() {
	if !s.u.opts.Checksum || s.hashing || s.running != nil || s.gone || s.u.ctx.Err() != nil {
		return
	}
	if s.hold() != nil {
		return
	}
	s.hashing = true
	s.u.wg.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for done := int64(-1); s.running == nil; {
			end := s.content.written.prefix() / s.u.chunk * s.u.chunk
			if end <= done {
				break
			}
			file := s.file
			s.mu.Unlock()
			_, err := s.digest.advance(s.u.ctx, file, end, false, s.generation, s.stale)
			s.mu.Lock()
			if err != nil {
				break // the commit meets it again, and reports it
			}
			done = end
		}
		s.hashing = false
		s.unhold()
	})
}

// generation and stale are what a digest asks; they lock.
func (s *session) generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.gen
}

func (s *session) stale(off, end int64, gen uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.changedAfter(off, end, gen)
}
