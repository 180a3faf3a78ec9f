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

// run is a commit under way: the making of the File out of a content. Its
// goroutine is the uploader's; there is one at a time for a session.
type run struct{}

// start lets the content be committed, now or after the commit under way. mu is held.
func (s *session) start() {
	if s.running != nil {
		s.cond.Broadcast() // it will see that asked has moved on
		return
	}
	s.running = &run{}
	s.u.wg.Go(s.commitAll)
}

// commitAll commits the content that the last close spoke of, and again for as
// long as closes speak of later ones meanwhile.
func (s *session) commitAll() {
	u := s.u
	queued := u.jobs.Acquire(u.ctx, 1)
	if queued == nil {
		defer u.jobs.Release(1)
	}
	u.repin(s)
	defer u.unpin(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	// A close that spoke of a later content may have decided otherwise about it.
	for s.rec.State.Committing() && !s.gone {
		target := s.asked
		err := s.commit(target)
		switch {
		case err == nil, errors.Is(err, errSuperseded):
		case u.ctx.Err() != nil:
			s.answer(s.asked, context.Cause(u.ctx))
			s.running = nil
			return // the journal has it; the next mount goes on
		case s.gone:
			s.answer(s.asked, errGone)
		default:
			u.log.Error("failed", "path", s.rec.Path, "upload", s.rec.Upload.ID, "error", err)
			if s.content.gen == target {
				s.move(state.Failed, err)
			}
			s.answer(target, err)
		}
		if s.asked == target {
			break
		}
	}
	s.running = nil
	s.cond.Broadcast()
}

// commit makes the API hold the content of generation target, through as many
// Uploads as it takes. mu is held, but not while it works.
func (s *session) commit(target uint64) error {
	if err := s.stands(target); err != nil {
		return err
	}
	if err := s.hold(); err != nil {
		return err
	}
	defer s.unhold()
	info, err := backing.StatFd(int(s.file.Fd()))
	if err != nil {
		return api.LocalError("stat", err)
	}
	if info.Size != s.content.size && s.sight == nil {
		return api.LocalError("close", fmt.Errorf("the backing file has %d bytes and should have %d", info.Size, s.content.size))
	}
	again := s.insisted
	s.insisted = false
	for expired, listedOnly := 0, false; ; {
		md5, err := s.transferAll(target)
		known := true // that there is no File of it yet
		if err == nil {
			err = s.conclude(target, md5)
			known = !errors.Is(err, api.ErrOutcomeUnknown)
		}
		if err == nil {
			return nil
		}
		if why := s.stands(target); why != nil {
			return why
		}
		switch {
		case errors.Is(err, errDoubt):
			continue
		case api.KindOf(err) == api.Gone && expired == 0:
			expired++
			s.u.log.Warn("upload gone, everything is sent again", "path", s.rec.Path, "error", err)
		case api.KindOf(err) == api.Gone:
			s.dropTransfer(err)
			return &api.Error{Op: "upload", Kind: api.Refused, Err: err, Message: s.tooSlow(err)}
		case api.KindOf(err) == api.Refused && s.xfer != nil && s.xfer.replaced > 0 && !listedOnly && known:
			// Perhaps the API counts parts that are not listed: once
			// more, with an Upload that has no others.
			listedOnly = true
			s.u.log.Warn("refused with replaced parts, everything is sent again", "path", s.rec.Path, "error", err)
		case api.KindOf(err) == api.Refused && !known && again && !errors.Is(err, errSeveral):
			again = false
			s.u.log.Warn("its outcome cannot be known, everything is sent again", "path", s.rec.Path, "error", err)
		default:
			return err
		}
		s.dropTransfer(err)
		s.move(state.Uploading, nil)
	}
}

// tooSlow says what a line would need for an Upload that expired twice.
func (s *session) tooSlow(err error) string {
	size := uint64(s.content.size)
	return fmt.Sprintf("two Uploads of %s expired before they were sent; that needs a line of %s/s: %s",
		humanize.IBytes(size), humanize.IBytes(size/3600+1), api.OneLine(err))
}

// stands reports why the content of generation target cannot be committed any
// more, if so. mu is held.
func (s *session) stands(target uint64) error {
	s.look()
	switch {
	case s.u.ctx.Err() != nil:
		return context.Cause(s.u.ctx)
	case s.gone:
		return errGone
	case s.content.gen != target || s.content.pending > 0:
		return errSuperseded
	}
	return nil
}

// transferAll brings the content into one Upload, and returns its MD5. mu is
// held, but not while it works.
func (s *session) transferAll(target uint64) (md5 string, err error) {
	if x := s.xfer; x != nil && (x.err != nil || x.spec.Bytes != s.content.size) {
		why := x.err
		if why == nil {
			why = fmt.Errorf("declared %d bytes, there are %d", x.spec.Bytes, s.content.size)
		}
		s.dropTransfer(why)
	}
	if s.xfer == nil {
		s.newTransfer(s.content.size)
	}
	x, file := s.xfer, s.file
	if time.Now().Before(x.again) {
		s.showTrouble(x)
	}
	s.mu.Unlock()
	err = s.prove(x, file)
	s.mu.Lock()
	if err != nil {
		return "", err
	}
	s.beginCommit()
	if s.u.opts.PartSize == 0 {
		x.divide(int64(s.u.opts.Parallel - x.inflight))
	}
	s.pump() // what is missing goes while what has gone is compared
	sum := s.sumUp()
	defer sum.stop()
	if err := s.verify(x); err != nil {
		return "", err
	}
	s.pump()
	for x.err == nil && s.stands(target) == nil && !(x.complete(&s.content) && s.verified(x)) {
		if x.complete(&s.content) {
			// Parts that were on their way when the commit began.
			if err := s.verify(x); err != nil {
				return "", err
			}
		} else {
			s.cond.Wait()
		}
		s.pump()
	}
	if err := s.stands(target); err != nil {
		return "", err
	}
	if x.err != nil {
		return "", x.err
	}
	s.mu.Unlock()
	md5, err = sum.wait(x.life)
	s.mu.Lock()
	return md5, err
}

// conclude makes the File out of the Upload that the content of generation target
// has gone to. errDoubt: that is to be done again, nothing was completed. mu is
// held, but not while it works.
func (s *session) conclude(target uint64, md5 string) error {
	x := s.xfer
	if x == nil {
		return errSuperseded // given up since
	}
	s.mu.Unlock()
	end, err := s.u.turns.take(x.life, x.spec)
	if err == nil {
		defer end()
		err = s.u.acquire(x.life)
	}
	s.mu.Lock()
	if err != nil {
		return err
	}
	if err = s.stands(target); err == nil && !s.verified(x) {
		err = errDoubt
	}
	if err != nil {
		s.u.freeSlot()
		return err
	}
	ids := make([]string, len(x.parts))
	for i, p := range x.parts {
		ids[i] = p.id
	}
	before := s.rec.Completing // an earlier call may have been carried out
	s.rec.Completing = true
	// Before the call: its answer may be lost with us.
	s.recorded(s.u.journal.Completing(x.upload.ID, x.spec, x.created))
	x.calls.Add(1)
	s.mu.Unlock()
	file, err := s.u.opts.Backend.Complete(s.checked(x, before), x.upload.ID, ids, md5)
	s.u.freeSlot()
	s.mu.Lock()
	x.done = err == nil
	x.calls.Done()
	if err == nil {
		s.finish(target, x, file, md5)
		return nil
	}
	if errors.Is(err, api.ErrOutcomeUnknown) {
		if s.xfer != x || s.content.gen != target {
			x.end(err) // it may take no more parts
		}
	} else {
		s.rec.Completing = false
		s.recorded(s.u.journal.Resolved(x.upload.ID))
	}
	return why(x.life, err)
}

// finish records that the API holds the content of generation target, which x has
// brought there, as file. mu is held.
func (s *session) finish(target uint64, x *transfer, file api.File, md5 string) {
	x.end(errors.New("completed"))
	if s.xfer == x {
		s.xfer = nil
	}
	s.rec.Completing = false
	// Not before it is recorded whose File it is.
	defer func() { s.recorded(s.u.journal.Resolved(x.upload.ID)) }()
	s.u.log.Info("completed", "path", s.rec.Path, "upload", x.upload.ID, "file", file.ID,
		"bytes", x.spec.Bytes, "parts", len(x.parts), "took", time.Since(x.began).Round(time.Millisecond))
	switch {
	case s.gone:
		s.recorded(s.u.journal.Disown(file.ID))
		return
	case s.content.gen != target:
		// Right, and already superseded: the file has changed since.
		s.rec.Superseded = append(s.rec.Superseded[:len(s.rec.Superseded):len(s.rec.Superseded)], file.ID)
		s.rec.Spec, s.rec.Upload, s.rec.CreatedAt = api.Spec{}, api.Upload{}, time.Time{}
		s.save()
		s.publish()
		s.answer(target, nil)
		return
	}
	s.rec.FileID, s.rec.MD5 = file.ID, md5
	s.rec.Size = x.spec.Bytes
	if s.sight != nil {
		s.rec.Mtime = s.sight.seen.Mtime
	} else if info, err := backing.StatFd(int(s.file.Fd())); err == nil {
		s.rec.Mtime = info.Mtime // of this content: no change has begun since
	}
	s.rec.Parts = nil
	for _, p := range x.parts {
		s.rec.Parts = append(s.rec.Parts, journal.Part{Off: p.off, Len: p.n, CRC: p.crc, ID: p.id})
	}
	s.content.settle()
	if s.sight != nil {
		s.sight.clean = s.sight.epoch
	}
	s.move(state.Completed, nil)
	s.u.journal.Sync()
	s.answer(target, nil)
}

// sumUp is the hashing of a content to its end, beside its sending.
type sumUp struct {
	cancel context.CancelFunc
	done   chan struct{}
	hex    string
	err    error
}

// sumUp starts the hashing. It goes on from what was hashed while the file was
// written; of a blind session that is compared with the file first. mu is held.
func (s *session) sumUp() *sumUp {
	ctx, cancel := context.WithCancel(s.u.ctx)
	sum := &sumUp{cancel: cancel, done: make(chan struct{})}
	if !s.u.opts.Checksum {
		close(sum.done)
		return sum
	}
	file, size, blind := s.file, s.content.size, s.sight != nil
	s.refs++ // until the hashing is over
	s.u.wg.Go(func() {
		if blind {
			sum.err = s.digest.verify(ctx, file)
		}
		if sum.err == nil {
			sum.hex, sum.err = s.digest.advance(ctx, file, size, true, s.generation, s.stale)
		}
		s.mu.Lock()
		s.unhold()
		s.mu.Unlock()
		close(sum.done)
	})
	return sum
}

// wait returns the MD5 in hex, "" where none is taken.
func (s *sumUp) wait(ctx context.Context) (string, error) {
	select {
	case <-s.done:
		return s.hex, s.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// stop ends the hashing if nobody needs it any more.
func (s *sumUp) stop() { s.cancel() }
