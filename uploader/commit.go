package uploader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// A commit makes the API hold the content of one generation as a File. There is
// one at a time for a session, in a goroutine of its own; transferAll, then
// completeUpload, then recordFile.

var (
	// errMayDiffer says that the file may have changed in a way that only reading it shows.
	errMayDiffer = errors.New("the file was touched while it was being committed")
	// errSuperseded says that another content is to be committed now.
	errSuperseded = errors.New("the content changed while it was being committed")
	// errHeldBack says that the file has got a name under which it is not sent.
	errHeldBack = errors.New("renamed before it had an Upload")
)

// startCommit lets the content of the last close be committed, now or after the commit
// under way. mu is held.
func (s *session) startCommit() {
	s.settling.stop()
	s.settling.waiting = false
	if s.commits.running {
		s.cond.Broadcast() // it will see that another generation is requested
		return
	}
	s.commits.running, s.commits.queued = true, true
	// While it waits for its job, the file has neither a goroutine nor a descriptor.
	size := s.commits.next.size
	s.job.request(s.u.kindOf(size), size, s.expires(size), func() { s.u.wg.Go(s.commitAll) })
}

// forgetCommit ends a commit that waits for its job. One that has the job ends by
// itself, once it has nothing to commit. mu is held.
func (s *session) forgetCommit() {
	if s.commits.queued && s.job.withdraw() {
		s.commits.running, s.commits.queued = false, false
		s.cond.Broadcast()
	}
}

// commitAll commits the content that the last close spoke of, and again for as
// long as closes speak of later ones meanwhile.
func (s *session) commitAll() {
	u := s.u
	u.ref(s)
	defer u.unref(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.job.leave()
	s.commits.queued = false
	// A close that spoke of a later content may have decided otherwise about it.
	for s.commits.next != nil && !s.settling.waiting && !s.unlinked {
		if !s.admitted(s.commits.next.size) {
			s.admit(s.commits.next.size)
			continue
		}
		t, first := s.commits.next, s.settling.begin()
		s.setTargets(t, t)
		err := s.commit(t)
		s.commits.sending = false
		switch {
		case err == nil:
			s.commits.retries = 0
		case errors.Is(err, errSuperseded):
			s.settling.superseded(first)
			if s.commits.next == t {
				s.retarget(t)
			}
		case u.ctx.Err() != nil:
			s.answer(s.commits.requested, context.Cause(u.ctx))
			s.commits.running = false
			return // the journal has it; the next mount goes on
		case s.unlinked:
			s.answer(s.commits.requested, errUnlinked)
		default:
			u.log.Error("failed", "path", s.rec.Path, "upload", s.rec.Upload.ID, "error", err)
			if s.content.gen == t.gen {
				s.move(state.Failed, err)
			}
			s.answer(t.gen, err)
		}
		if s.commits.next == t {
			s.commits.next = nil
		}
	}
	s.setTargets(nil, s.commits.next) // one that settles
	s.commits.running, s.commits.retries = false, 0
	if s.rec.State != state.Writing && !s.rec.State.Committing() {
		s.answer(s.commits.requested, s.standingError()) // no other commit will
	}
	s.observer.commitsEnded()
	s.cond.Broadcast()
}

// retryPause is the first pause before another target is taken; it doubles up to
// maxRetryPause.
const (
	retryPause    = 25 * time.Millisecond
	maxRetryPause = time.Second
)

// retarget takes the content as it is now for the closes that wait, where that of
// the last close may have gone: in passthrough an append hides where it was. Only
// growth has been seen, so the file is a log and not one that is being written anew.
// The pauses grow: a writer that never rests must not keep the daemon reading. mu is
// held, but not while it pauses.
func (s *session) retarget(t *target) {
	if t.withdrawn || t.low < t.size || !s.commits.waits(t.gen) || s.put != nil {
		return
	}
	if n := s.commits.retries; n > 0 {
		pause := time.NewTimer(min(retryPause<<min(n, 10), maxRetryPause))
		defer pause.Stop()
		s.unlocked(func() {
			select {
			case <-pause.C:
			case <-s.u.ctx.Done():
			}
		})
	}
	s.commits.retries++
	if s.commits.next == t && s.commits.waits(t.gen) && t.low >= t.size && s.rec.State == state.Writing {
		s.requestCommit()
	}
}

// commit makes the API hold the content of the target, through as many
// Uploads as it takes. mu is held, but not while it works.
func (s *session) commit(t *target) error {
	if err := s.superseded(t); err != nil {
		return err
	}
	if err := s.openFile(); err != nil {
		return err
	}
	defer s.closeFile()
	info, err := backing.StatFd(s.file.fd())
	if err != nil {
		return api.LocalError("stat", err)
	}
	if err := s.observer.checkSize(info, t); err != nil {
		return err
	}
	again := attempts{forced: s.commits.forced}
	s.commits.forced = false
	for {
		md5, err := s.transferAll(t)
		outcomeKnown := true // there is no File of it yet
		if err == nil {
			err = s.completeUpload(t, md5)
			outcomeKnown = !errors.Is(err, api.ErrOutcomeUnknown)
		}
		if err == nil {
			return nil
		}
		if why := s.superseded(t); why != nil {
			return why
		}
		if errors.Is(err, errMayDiffer) {
			continue
		}
		replaced := s.xfer != nil && s.xfer.replaced > 0
		life, rate := s.job.hopeless()
		if rate > 0 && s.xfer != nil && !time.Now().Before(s.xfer.upload.ExpiresAt) {
			again.expired = true
		}
		why := again.reason(err, outcomeKnown, replaced)
		if why == "" {
			if api.KindOf(err) == api.Gone {
				s.dropTransfer(err)
				return &api.Error{Op: "upload", Kind: api.Refused, Err: err, Message: tooSlow(t.size, life, rate, err)}
			}
			return err
		}
		s.u.log.Warn(why+", everything is sent again", "path", s.rec.Path, "error", err)
		s.dropTransfer(err)
		s.move(state.Uploading, nil)
		s.admit(t.size)
	}
}

// attempts counts the reasons for which a commit may send everything again. Each
// counts once.
type attempts struct {
	expired    bool
	listedOnly bool
	forced     bool // the user has asked for it where the outcome cannot be known
}

// reason says why everything is to be sent again after err, or "" if it is not.
// outcomeKnown says that there is no File of the content; replaced, that the Upload
// has parts that Complete did not list.
func (a *attempts) reason(err error, outcomeKnown, replaced bool) string {
	kind := api.KindOf(err)
	switch {
	case kind == api.Gone && !a.expired:
		a.expired = true
		return "upload gone"
	case kind == api.Refused && replaced && !a.listedOnly && outcomeKnown:
		// The API may count parts that are not listed: once more, with an
		// Upload that has no others.
		a.listedOnly = true
		return "refused with replaced parts"
	case kind == api.Refused && !outcomeKnown && a.forced && !errors.Is(err, errSeveral):
		a.forced = false
		return "its outcome cannot be known"
	}
	return ""
}

// tooSlow says what a line would need for n bytes in the life of an Upload. Two have
// expired, or one that could not be in time at this rate, where it is not 0.
func tooSlow(n int64, life time.Duration, rate float64, err error) string {
	size, need := humanize.IBytes(uint64(n)), humanize.IBytes(uint64(float64(n)/max(life.Seconds(), 1))+1)
	if rate > 0 {
		return fmt.Sprintf("an Upload of %s expired before it was sent at %s/s; that needs a line of %s/s: %s",
			size, humanize.IBytes(uint64(rate)), need, api.OneLine(err))
	}
	return fmt.Sprintf("two Uploads of %s expired before they were sent; that needs a line of %s/s: %s",
		size, need, api.OneLine(err))
}

// superseded reports why the content of the target cannot be committed any more, nil
// if it can. mu is held.
func (s *session) superseded(t *target) error {
	s.observer.poll()
	switch {
	case s.u.ctx.Err() != nil:
		return context.Cause(s.u.ctx)
	case s.unlinked:
		return errUnlinked
	case t.withdrawn || !s.observer.whole(t):
		return errSuperseded
	}
	return nil
}

// transferAll brings the content of the target into one Upload, and returns its MD5.
// What the file has become meanwhile does not matter once it has. mu is held, but
// not while it works.
func (s *session) transferAll(t *target) (md5 string, err error) {
	x := s.transferFor(t.size)
	file := s.file.f
	if time.Now().Before(x.nextAttempt) {
		s.showTrouble(x)
	}
	if err := s.matchResumed(x, file); err != nil {
		return "", err
	}
	s.divide(x)
	s.measureJob()
	if err := s.observer.beginCommit(t, x); err != nil {
		return "", err
	}
	if err := s.superseded(t); err != nil {
		return "", err // nothing has been declared for it
	}
	s.commits.sending = true
	s.pump() // what is missing goes while what has gone is compared
	sum := s.hashToEnd(t)
	defer sum.stop()
	if err := s.observer.rematch(x); err != nil {
		return "", err
	}
	s.pump()
	for {
		if err := s.superseded(t); err != nil {
			return "", err
		}
		if x.err != nil {
			return "", x.err
		}
		complete := s.complete(x)
		if complete && s.observer.matched(t, x) {
			break
		}
		if complete {
			// Parts that were on their way when the commit began.
			if err := s.observer.rematch(x); err != nil {
				return "", err
			}
		} else {
			s.cond.Wait()
		}
		s.pump()
	}
	s.unlocked(func() { err = sum.wait(x.life) })
	if err == nil && !t.hashed {
		if err = s.superseded(t); err == nil {
			err = errMayDiffer
		}
	}
	return t.md5, err
}

// transferFor is the transfer under way if it can become an Upload of size bytes,
// else a new one. mu is held.
func (s *session) transferFor(size int64) *transfer {
	if x := s.xfer; x != nil {
		switch {
		case x.err != nil:
			s.dropTransfer(x.err)
		case x.spec.Bytes != size:
			s.dropTransfer(fmt.Errorf("declared %d bytes, there are %d", x.spec.Bytes, size))
		default:
			return x
		}
	}
	return s.newTransfer(size)
}

// completeUpload makes the File out of the Upload that the content of the target has
// gone to. Where the file has changed meanwhile, that is a File all the same: what
// can be finished is finished. mu is held, but not while it works.
func (s *session) completeUpload(t *target, md5 string) error {
	x := s.xfer
	if x == nil {
		return errSuperseded // given up since
	}
	slot := s.u.schedule.ticket(opComplete, small, s.job)
	slot.turn = s.u.turns.turn(x.spec)
	defer slot.turn.end() // when the journal has the File
	defer slot.free()
	var err error
	s.unlocked(func() { err = slot.Begin(x.life) })
	if err != nil {
		return err
	}
	if err = s.givenUp(t, x); err != nil {
		return err
	}
	before := s.rec.Completing // an earlier call may have been carried out
	s.rec.Completing = true
	// Before the call: its answer may be lost with us.
	s.recorded(s.u.journal.Completing(x.upload.ID, x.spec, x.created))
	x.calls.Add(1)
	x.completing, x.mayBeDone, s.commits.completing = true, before, true
	var file api.File
	durable := s.rec.Durable != (backing.Stamp{})
	s.unlocked(func() {
		file, err = s.callComplete(x, md5, before, durable, slot)
		slot.free()
	})
	x.completing, s.commits.completing = false, false
	x.done, x.mayBeDone = err == nil, errors.Is(err, api.ErrOutcomeUnknown)
	x.calls.Done()
	switch {
	case x.done:
		s.recordFile(t, x, file, md5)
		return nil
	case !x.mayBeDone:
		if s.xfer == x {
			s.rec.Completing = false
		}
		s.recorded(s.u.journal.Resolved(x.upload.ID))
	case s.xfer != x || s.content.gen != t.gen:
		// The record will not name the File that may have come of it.
		s.u.log.Warn("a File may exist that no record names", "path", s.rec.Path,
			"upload", x.upload.ID, "filename", x.spec.Filename, "error", err)
		x.end(err) // it may take no more parts
	}
	if x.err != nil {
		x.giveUp(x.err)
	}
	return causeOf(x.life, err)
}

// givenUp reports why an Upload that has all of its content is not completed. mu is
// held.
func (s *session) givenUp(t *target, x *transfer) error {
	switch {
	case s.unlinked:
		return errUnlinked
	case t.withdrawn:
		return errSuperseded
	case x.err != nil:
		return x.err
	case s.put != nil:
		return s.superseded(t) // its caller is told that nothing was published
	}
	return nil
}

// callComplete calls Complete; repeated says that an earlier call may have been
// carried out, durable that the content is recorded as on the disk. mu is not held.
func (s *session) callComplete(x *transfer, md5 string, repeated, durable bool, slot *ticket) (api.File, error) {
	if durable && !repeated {
		// After a power cut the next mount goes on with this content. It would make
		// a second File of it if it did not know that there may be one.
		if err := s.u.journal.Flush(); err != nil {
			return api.File{}, err
		}
	}
	ids := make([]string, len(x.parts))
	for i, p := range x.parts {
		ids[i] = p.id
	}
	return s.u.opts.Backend.Complete(s.checked(x, repeated, slot), x.upload.ID, ids, md5)
}

// recordFile records that the API holds the content of the target, which x has
// brought there, as file. mu is held.
func (s *session) recordFile(t *target, x *transfer, file api.File, md5 string) {
	x.end(errors.New("completed"))
	if s.xfer == x {
		s.xfer = nil
		s.rec.Completing = false
	}
	if !s.unlinked {
		s.u.madeOften.add(s.key, time.Now())
	}
	s.u.log.Info("completed", "path", s.rec.Path, "upload", x.upload.ID, "file", file.ID,
		"bytes", x.spec.Bytes, "parts", len(x.parts), "took", time.Since(x.began).Round(time.Millisecond))
	switch {
	case s.unlinked:
		// The log has named it; the record has gone with the file.
		s.recorded(s.u.journal.Disown(file.ID))
		s.recorded(s.u.journal.Resolved(x.upload.ID))
		return
	case s.content.gen != t.gen || len(s.content.pending) > 0:
		// Right, and already superseded: the file has changed since.
		s.rec.Supersede(file.ID)
		if s.rec.Upload.ID == x.upload.ID {
			s.rec.ForgetUpload()
		}
		s.save(journal.WithResolved(x.upload.ID))
		s.u.journal.Sync()
		s.publish()
		s.answer(t.gen, nil)
		return
	}
	s.rec.FileID, s.rec.MD5 = file.ID, md5
	s.rec.Size = x.spec.Bytes
	if now, ok := s.observer.completed(); ok {
		s.rec.Mtime, s.rec.Ctime = now.Mtime, now.Ctime
	}
	s.rec.Parts = nil
	for _, p := range x.parts {
		s.rec.Parts = append(s.rec.Parts, journal.Part{Off: p.off, Len: p.n, CRC: p.crc, ID: p.id})
	}
	s.content.clearWritten()
	s.move(state.Completed, nil, journal.WithResolved(x.upload.ID))
	s.u.journal.Sync()
	s.answer(t.gen, nil)
}
