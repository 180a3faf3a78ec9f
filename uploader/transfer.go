package uploader

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

var (
	errUnlinked = &api.Error{Kind: api.Removed, Message: "the file was removed before it was uploaded"}
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
	cancelGrace = 15 * time.Second // for telling the API that an Upload is given up
)

// transfer is one Upload that a content goes to: declared once with its exact
// size, fed with parts in any order, and completed or given up. It belongs to a
// session, whose mutex guards it.
type transfer struct {
	spec     api.Spec
	upload   api.Upload // zero until declared
	created  time.Time  // by the API's clock if it says, else by ours
	began    time.Time  // when this process declared it, or took it up
	parts    []*part    // in file order, without gaps, spec.Bytes in all
	replaced int        // acknowledged parts whose place later ones took: the API has them unlisted

	life        context.Context // ends when the transfer is given up
	giveUp      context.CancelCauseFunc
	ctx         context.Context // ends with life, or when the Upload expires
	cancel      context.CancelCauseFunc
	expiry      *time.Timer
	feeding     bool // the feeder is at work
	inflight    int
	calls       sync.WaitGroup // the feeder, every part under way, and Complete
	declaring   bool           // an attempt of Create is under way: nothing but the daemon's end cuts it off
	completing  bool           // the same of Complete, with the pauses between its attempts
	mayBeDone   bool           // a Complete whose outcome is not known may have made a File of it
	done        bool           // the API has made a File of it
	lastErr     error          // of the last attempt, if it failed and will be repeated
	nextAttempt time.Time      // when
	err         error          // what ended it
}

// part is a chunk of the content and the API's receipt for it.
type part struct {
	off, n  int64
	id      string // "" until acknowledged
	crc     uint32 // CRC-32C of exactly the bytes sent
	gen     uint64 // the content's generation when the reading began
	epoch   uint64 // of the observer: when the reading began, or when it was compared
	tried   bool   // it went once while the file was being written; the next time is at commit
	sending bool
	failing bool          // an attempt has failed, and the next one has not succeeded yet
	acked   *atomic.Int64 // while sending: bytes that the peer has acknowledged
	matched bool          // what id stands for was sent by this process, or compared since
}

// newTransfer plans an Upload of size bytes in whole chunks. It sends nothing yet.
// mu is held.
func (s *session) newTransfer(size int64) *transfer {
	x := &transfer{}
	x.life, x.giveUp = context.WithCancelCause(s.u.ctx)
	x.ctx, x.cancel = context.WithCancelCause(x.life)
	x.spec.Bytes = size
	x.parts = cut(0, size, s.u.chunk)
	s.xfer = x
	return x
}

// divide plans what is not sent so that all idle slots have the same to do, where
// parts may have any size. mu is held.
func (s *session) divide(x *transfer) {
	if s.u.opts.PartSize == 0 {
		x.divide(int64(s.u.schedule.parallel() - x.inflight))
	}
}

// dropTransfer gives the transfer up: parts under way are stopped, and the Upload
// is cancelled behind. One that may be a File is not cancelled. mu is held.
func (s *session) dropTransfer(why error) {
	x := s.xfer
	if x == nil {
		return
	}
	s.xfer = nil
	if !s.commits.running {
		s.job.leave()
	}
	s.rec.ForgetUpload()
	s.rec.Completing = false
	x.end(why)
	if s.u.ctx.Err() != nil {
		return
	}
	s.u.wg.Go(func() {
		x.calls.Wait()
		s.mu.Lock()
		id, expires, made := x.upload.ID, x.upload.ExpiresAt, x.done || x.mayBeDone
		s.mu.Unlock()
		if id == "" || made || time.Now().After(expires) {
			return
		}
		if err := s.u.cancelUpload(id); err != nil {
			s.u.log.Warn("upload not cancelled; it expires by itself", "upload", id, "error", err)
			return
		}
		s.u.log.Info("upload cancelled", "upload", id, "why", api.OneLine(why))
	})
}

// cancelUpload tells the API that an Upload is given up.
func (u *Uploader) cancelUpload(id string) error {
	ctx, cancel := context.WithTimeout(u.ctx, cancelGrace)
	defer cancel()
	slot := u.schedule.ticket(opOther, small, nil)
	defer slot.free()
	return u.opts.Backend.Cancel(api.WithAttempts(ctx, slot), id)
}

// end stops whatever the transfer is doing, but for a Create or Complete: without its
// answer, nothing could cancel the Upload or name the File that comes of it.
func (x *transfer) end(why error) {
	if x.err == nil {
		x.err = why
	}
	if !x.declaring && !x.completing {
		x.giveUp(why)
	}
	if x.expiry != nil {
		x.expiry.Stop()
	}
}

// declared takes the API's answer to Create and lets the transfer end when the
// Upload expires. mu is held.
func (x *transfer) declared(spec api.Spec, up api.Upload, created time.Time) {
	x.spec, x.upload, x.created, x.began = spec, up, created, time.Now()
	expired := &api.Error{Op: "upload", UploadID: up.ID, Kind: api.Gone, Message: fmt.Sprintf(
		"the Upload of %d bytes expired at %s", spec.Bytes, up.ExpiresAt.Format(time.DateTime))}
	if x.err == nil {
		x.expiry = time.AfterFunc(time.Until(up.ExpiresAt), func() { x.cancel(expired) })
	}
}

// current reports whether the part's receipt stands for what is to be sent: what
// the file has there now, or what it had at the close that the commit is for. mu is
// held.
func (s *session) current(p *part) bool {
	return p.id != "" && p.matched && s.observer.current(p)
}

// complete reports whether every part is acknowledged and current, and nothing
// is under way any more. mu is held.
func (s *session) complete(x *transfer) bool {
	if x.inflight > 0 || x.upload.ID == "" {
		return false
	}
	for _, p := range x.parts {
		if !s.current(p) {
			return false
		}
	}
	return true
}

// nextPart is the one place that decides what is sent now: at a commit whatever is
// not current; before it, a chunk that is full and whose size is confirmed, once.
// nil: nothing. mu is held.
func (s *session) nextPart(x *transfer) *part {
	if x.err != nil {
		return nil
	}
	for _, p := range x.parts {
		if p.sending || s.current(p) {
			continue
		}
		if s.commits.sending || s.early(x, p) {
			return p
		}
	}
	return nil
}

// early reports whether the part may go before the commit. mu is held.
func (s *session) early(x *transfer, p *part) bool {
	return s.rec.State == state.Writing && !s.unlinked && !s.lost.any() && !p.tried &&
		s.prediction.allows(p.off, p.off+p.n, x.spec.Bytes) && s.content.written.contains(p.off, p.off+p.n)
}

// pump lets the feeder run if there is something to send. mu is held.
func (s *session) pump() {
	x := s.xfer
	if x == nil || x.err != nil || x.feeding || s.u.ctx.Err() != nil || s.nextPart(x) == nil {
		return
	}
	if err := s.openFile(); err != nil {
		x.end(err)
		s.cond.Broadcast()
		return
	}
	x.feeding = true
	s.call(x, func() { s.feed(x) })
}

// call runs f as one of the transfer's goroutines.
func (s *session) call(x *transfer, f func()) {
	x.calls.Add(1)
	s.u.wg.Go(func() {
		defer x.calls.Done()
		f()
	})
}

// feed declares the Upload if that has not happened, and then sends parts for as
// long as there are any that should go. It takes a slot before it decides which
// part that is, so that the choice is made on what is true then.
func (s *session) feed(x *transfer) {
	err := s.declare(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	for err == nil {
		next := s.nextPart(x)
		if next == nil {
			break
		}
		slot := s.u.schedule.ticket(opPart, s.u.kindOf(next.n), s.job)
		if slot.kind == large {
			slot.expires, slot.bytes = x.upload.ExpiresAt, next.n
		}
		s.unlocked(func() { err = slot.Begin(x.ctx) })
		if err != nil {
			break
		}
		p := s.nextPart(x)
		if p != nil && s.u.kindOf(p.n) != slot.kind {
			slot.free()
			continue
		}
		if p == nil || s.openFile() != nil {
			slot.free()
			break
		}
		p.sending, p.tried = true, true
		p.gen, p.epoch, p.acked = s.content.gen, s.observer.epoch(), new(atomic.Int64)
		x.inflight++
		s.measureJob()
		s.publish()
		file := s.file.f
		s.call(x, func() { s.send(x, p, file, slot) })
	}
	if err != nil {
		x.end(err)
	}
	x.feeding = false
	s.closeFile()
	s.cond.Broadcast()
}

// declare creates the Upload. Each attempt declares the attributes and the name of its
// own moment.
func (s *session) declare(x *transfer) error {
	s.mu.Lock()
	id, size := x.upload.ID, x.spec.Bytes
	s.mu.Unlock()
	if id != "" {
		return nil
	}
	slot := s.u.schedule.ticket(opCreate, small, s.job)
	if err := slot.Begin(x.ctx); err != nil {
		return err
	}
	defer slot.free()
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.err != nil {
		return x.err
	}
	var path string
	var spec api.Spec
	current := func() api.Spec {
		s.mu.Lock()
		x.declaring, path = true, s.rec.Path
		s.mu.Unlock()
		spec = s.declaration(path, size)
		return spec
	}
	created := time.Now().Add(-clockSkew) // unless the API says it
	var up api.Upload
	var err error
	s.unlocked(func() {
		up, err = s.u.opts.Backend.Create(api.WithSpec(api.WithAttempts(s.noted(x.ctx, x), slot), current), current())
		slot.free()
	})
	x.declaring = false
	if err != nil {
		return causeOf(x.ctx, err)
	}
	if !up.CreatedAt.IsZero() {
		created = up.CreatedAt
	}
	x.declared(spec, up, created)
	s.job.declared(up.ExpiresAt)
	if x.err != nil {
		return x.err // given up meanwhile; dropTransfer cancels it
	}
	s.rec.Spec, s.rec.Upload, s.rec.CreatedAt = spec, up, created
	s.rec.Parts, s.rec.Completing = nil, false
	s.save(journal.WithoutParts(s.key))
	s.publish()
	s.u.log.Info("upload created", "path", path, "upload", up.ID, "bytes", spec.Bytes, "purpose", spec.Purpose)
	return nil
}

// send sends one part and records the receipt. It frees the slot.
func (s *session) send(x *transfer, p *part, file io.ReaderAt, slot *ticket) {
	sum := &summing{from: file, base: p.off, at: p.off}
	noted := s.noted(x.ctx, x)
	noted = api.WithRetryNote(noted, s.notedPart(noted, p))
	ctx := api.WithProgress(api.WithAttempts(noted, slot), s.progress(p.acked))
	began := time.Now()
	s.flow.begin(began)
	s.u.flow.begin(began)
	id, err := s.u.opts.Backend.AddPart(ctx, x.upload.ID, io.NewSectionReader(sum, p.off, p.n))
	s.flow.end()
	s.u.flow.end()
	slot.free()

	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.closeFile()
	x.inflight--
	p.sending, p.failing = false, false
	switch {
	case err == nil && !sum.whole(p.off+p.n):
		// The bytes were not read once and in order, so nothing is known
		// of what was sent. It goes again.
		x.replaced++
		p.tried = false
	case err == nil:
		if p.id != "" {
			x.replaced++
		}
		p.id, p.crc, p.matched = id, sum.crc, true
		s.observer.sent(p)
		s.commits.lastAck = time.Now()
		if s.xfer == x {
			if err := s.u.journal.PutPart(s.key, journal.Part{Off: p.off, Len: p.n, CRC: p.crc, ID: id}); err != nil {
				s.u.log.Error("not recorded", "path", s.rec.Path, "upload", x.upload.ID, "part", id, "error", err)
			}
			s.publish()
		}
	case x.err == nil && s.overtaken(p):
		// It may have failed because of the change: the file was shorter
		// for a moment. What is wrong otherwise, the next time tells.
	case x.err == nil:
		x.end(causeOf(x.ctx, err))
	}
	if err != nil {
		s.publish() // what it had sent counts no more
	}
	s.measureJob()
	s.pump()
	s.cond.Broadcast()
}

// progress takes in how much of a part the peer has acknowledged.
func (s *session) progress(acked *atomic.Int64) func(int64) {
	return func(n int64) {
		if more := n - acked.Swap(n); more > 0 {
			now := time.Now()
			s.flow.add(now, more)
			s.u.flow.add(now, more)
		}
	}
}

// measureJob tells the schedule how much of the file is to be sent: before its commit
// only what is on its way. mu is held.
func (s *session) measureJob() {
	if s.xfer == nil {
		return
	}
	left := int64(0)
	for _, p := range s.xfer.parts {
		if p.sending || s.commits.running && !s.current(p) {
			left += p.n
		}
	}
	s.job.measure(left)
}

// overtaken reports whether the part may have changed since it began to be read. mu
// is held.
func (s *session) overtaken(p *part) bool {
	s.observer.poll()
	return s.content.changedFor(s.commits.target, p.off, p.off+p.n, p.gen) || p.epoch != s.observer.epoch()
}

// why prefers the reason for which ctx was ended to what that looked like from
// inside a call.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// noted is ctx for a call for the transfer: failed attempts that will be repeated
// show as `retrying`.
func (s *session) noted(ctx context.Context, x *transfer) context.Context {
	return api.WithRetryNote(ctx, func(err error, next time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		x.lastErr, x.nextAttempt = err, next
		x.noteAttempt(err)
		s.showTrouble(x)
	})
}

// notedPart takes in how an attempt of the part ended, before what ctx has noted.
func (s *session) notedPart(ctx context.Context, p *part) func(error, time.Time) {
	return func(err error, next time.Time) {
		s.mu.Lock()
		p.failing = err != nil
		s.mu.Unlock()
		api.NoteRetry(ctx, err, next)
	}
}

// noteAttempt takes in that an attempt failed with err and will be repeated. The
// Create of a transfer that was given up ends here, and so does a Complete that has
// certainly done nothing: until the next attempt nothing is under way.
func (x *transfer) noteAttempt(err error) {
	switch {
	case err == nil:
	case x.declaring:
		x.declaring = false // until the next attempt
		if x.err != nil {
			x.giveUp(x.err)
		}
	case !x.completing:
	case errors.Is(err, api.ErrOutcomeUnknown):
		x.mayBeDone = true
	case x.err != nil && !x.mayBeDone:
		x.giveUp(x.err)
	}
}

// showTrouble makes the state say whether the transfer's last attempt met an
// outage; one that was met before the close shows from the close on. mu is held.
func (s *session) showTrouble(x *transfer) {
	if s.xfer != x || !s.commits.running {
		return
	}
	s.commits.nextAttempt = x.nextAttempt
	switch {
	case x.lastErr != nil && s.rec.State.Committing():
		if s.rec.State == state.Uploading {
			s.u.log.Warn("retrying", "path", s.rec.Path, "upload", x.upload.ID, "error", x.lastErr, "next", x.nextAttempt)
		}
		s.move(state.Retrying, x.lastErr)
	case x.lastErr == nil && s.rec.State == state.Retrying:
		s.move(state.Uploading, nil)
	}
}

// matchResumed compares what the API has acknowledged with what is in the file now,
// for every part that was sent before this process knew the file. mu is held, but
// not while it reads.
func (s *session) matchResumed(x *transfer, file io.ReaderAt) error {
	for _, p := range x.parts {
		if p.id == "" || p.matched {
			continue
		}
		if x.err != nil {
			return x.err
		}
		gen, crc := s.content.gen, p.crc
		var same bool
		var err error
		s.unlocked(func() { same, err = rangeMatches(x.life, file, p.off, p.n, crc) })
		switch {
		case err != nil:
			return err
		case same:
			p.matched, p.gen = true, gen
		default:
			p.id = ""
			x.replaced++
		}
	}
	return nil
}

// summing takes the CRC-32C of what is read through it, from base on and in
// order; reading from base again begins anew. An HTTP client may still be
// reading for an attempt that has failed when the next one begins, so it locks.
type summing struct {
	from io.ReaderAt
	base int64

	mu  sync.Mutex
	at  int64 // everything before it is in crc
	crc uint32
	odd bool // something was read out of order since base
}

func (r *summing) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.from.ReadAt(b, off)
	r.mu.Lock()
	defer r.mu.Unlock()
	if off == r.base {
		r.at, r.crc, r.odd = r.base, 0, false
	}
	if off == r.at {
		r.crc = crc32.Update(r.crc, castagnoli, b[:n])
		r.at += int64(n)
	} else {
		r.odd = true
	}
	return n, err
}

// whole reports whether crc covers exactly the bytes from base to end.
func (r *summing) whole(end int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.odd && r.at == end
}
