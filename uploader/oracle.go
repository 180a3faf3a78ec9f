package uploader

import (
	"context"
	"io"
	"strconv"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/state"
)

// SizeOracle guesses how large a file will become that somebody is writing. The
// kernel's side of the mount has one for a writer that copies: the size of the
// file it copies from. A wrong guess costs bandwidth, never correctness.
type SizeOracle interface {
	// Size is asked each time another chunk, the bytes [off, off+n) of
	// file, is full. written is how far file has been written from its
	// start without a gap. ok is false when the size cannot be told; it is
	// not asked again then. It may take its time, but not for ever.
	Size(ctx context.Context, file io.ReaderAt, off, n, written int64) (size int64, ok bool)
}

// earlyLimit is how long an Upload that is declared while its file is still
// being written may take by the rates seen: it expires after an hour.
const earlyLimit = 45 * time.Minute

// noteWritten looks at what a change has just filled. It is on the way of every
// write, so it only looks at the chunks that the change touched. mu is held.
func (s *session) noteWritten(off, end int64) {
	grown := false
	chunk := s.u.chunk
	for i := off / chunk; i*chunk < end; i++ {
		lo, hi := i*chunk, (i+1)*chunk
		if s.expected > lo {
			hi = min(hi, s.expected)
		}
		if !s.full[i] && s.content.written.contains(lo, hi) {
			s.full[i] = true
			grown = true
		}
	}
	if s.expected > 0 && s.content.size > s.expected {
		s.expected, s.oracle = 0, nil // larger than was thought: nothing more goes early
	}
	if grown {
		s.digestAhead()
		s.learn()
	}
}

// learn starts the asking for the size, if a full chunk waits for an answer. mu
// is held.
func (s *session) learn() {
	if s.learning || s.guessed || s.gone || s.u.ctx.Err() != nil || s.u.names.held(s.rec.Path) || s.u.names.excluded(s.rec.Path) {
		return
	}
	if err := s.hold(); err != nil {
		return // it will be sent at close, if it can be read then
	}
	s.learning = true
	s.u.wg.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for !s.guessed && s.learnNext() {
		}
		s.learning = false
		s.unhold()
	})
}

// learnNext asks about one full chunk that nobody has asked about, and says
// whether there was one. mu is held, but not while asking.
func (s *session) learnNext() bool {
	if s.rec.State != state.Writing || s.gone {
		return false // nothing goes early any more
	}
	chunk := s.u.chunk
	next := int64(-1)
	for i := range s.full {
		if !s.confirmed[i] && (next < 0 || i < next) {
			next = i
		}
	}
	if next < 0 {
		return false
	}
	path, size, ahead, oracle, cycle := s.rec.Path, s.content.size, s.content.ahead, s.oracle, s.cycle
	written, end := s.content.written.prefix(), min((next+1)*chunk, s.content.size)
	file := s.file
	s.mu.Unlock()

	known, ok := int64(0), false
	if hint, found := s.u.setting(path, AttrSizeHint); found {
		known, _ = strconv.ParseInt(hint, 10, 64)
		ok = known >= size
	}
	if !ok && ahead {
		known, ok = size, true
	}
	if !ok && oracle != nil {
		known, ok = oracle.Size(s.u.ctx, file, next*chunk, end-next*chunk, written)
	}

	s.mu.Lock()
	if s.cycle != cycle || s.rec.State != state.Writing || s.gone {
		return true // much may have happened meanwhile: look again
	}
	switch {
	case !ok || known < s.content.size || known > api.MaxUpload || s.expected != 0 && s.expected != known:
		// What is under way may still turn out right; nothing is added.
		s.expected, s.guessed = 0, true
		return false
	case s.xfer == nil && !s.inTime(known):
		s.guessed = true
		return false
	}
	s.confirmed[next] = true
	if s.expected == 0 {
		s.expected = known
		// The last chunk is shorter than the others, and may be full already.
		last := (known - 1) / chunk
		if !s.full[last] && s.content.written.contains(last*chunk, known) {
			s.full[last] = true
		}
	}
	if s.xfer == nil && s.running == nil {
		s.newTransfer(known)
	}
	s.pump()
	return true
}

// inTime reports whether an Upload of size bytes, declared now, would be
// completed well before it expires, at the rates seen. mu is held.
func (s *session) inTime(size int64) bool {
	written := s.content.written.total() // in whatever order the kernel sent it
	left := float64(size - written)
	rate := float64(written) / max(time.Since(s.began).Seconds(), 1e-3)
	need := left / max(rate, 1)
	if line := s.u.line.rate(); line > 0 {
		need = max(need, float64(size)/line)
	}
	return need < earlyLimit.Seconds()
}
