package uploader

import (
	"context"
	"io"
	"strconv"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/state"
)

// SizePredictor predicts how large a file will become that is being written. The
// kernel's side of the mount has one for a writer that copies: the size of the
// file it copies from. A wrong prediction costs bandwidth, never correctness.
type SizePredictor interface {
	// Size is asked each time another chunk, the bytes [off, off+n) of
	// file, is full. written is how far file has been written from its
	// start without a gap. ok is false when the size cannot be predicted;
	// the predictor is not asked again then. Size may take its time, but
	// not for ever.
	Size(ctx context.Context, file io.ReaderAt, off, n, written int64) (size int64, ok bool)
}

// earlyLimit is how long an Upload that is declared while its file is still
// being written may take by the rates seen: it expires after an hour.
const earlyLimit = 45 * time.Minute

// prediction is the size that a content is thought to get, and how far it may be
// trusted: each full chunk is checked against the predictor before it is sent.
// The session's mutex guards it.
type prediction struct {
	chunk int64 // bytes

	predictor     SizePredictor
	size          int64          // 0: unknown
	full          map[int64]bool // by chunk: nothing in it is unwritten
	confirmed     map[int64]bool // by chunk: the size was asked for with this chunk full
	asking        bool           // predictSize is at work
	unpredictable bool           // do not ask again for this content
}

// reset forgets everything but the predictor: another content begins.
func (p *prediction) reset() {
	p.size, p.unpredictable = 0, false
	p.full, p.confirmed = map[int64]bool{}, map[int64]bool{}
}

// noteWritten looks at the chunks that a change of [off, end) has touched, and
// reports whether one of them has become full by it. It is on the way of every
// write, so it looks at no other chunk.
func (p *prediction) noteWritten(c *content, off, end int64) (grown bool) {
	for i := off / p.chunk; i*p.chunk < end; i++ {
		lo, hi := i*p.chunk, (i+1)*p.chunk
		if p.size > lo {
			hi = min(hi, p.size)
		}
		if !p.full[i] && c.written.contains(lo, hi) {
			p.full[i] = true
			grown = true
		}
	}
	if p.size > 0 && c.size > p.size {
		p.size, p.predictor = 0, nil // larger than predicted: nothing more goes early
	}
	return grown
}

// next is the first full chunk that is not confirmed.
func (p *prediction) next() (chunk int64, ok bool) {
	chunk = -1
	for i := range p.full {
		if !p.confirmed[i] && (chunk < 0 || i < chunk) {
			chunk = i
		}
	}
	return chunk, chunk >= 0
}

// confirm takes the size that was predicted with this chunk full.
func (p *prediction) confirm(chunk, size int64, written extents) {
	p.confirmed[chunk] = true
	if p.size != 0 {
		return
	}
	p.size = size
	// The last chunk is shorter than the others, and may be full already.
	last := (size - 1) / p.chunk
	if !p.full[last] && written.contains(last*p.chunk, size) {
		p.full[last] = true
	}
}

// giveUp ends the prediction for this content. What is under way may still turn
// out right; nothing is added.
func (p *prediction) giveUp() { p.size, p.unpredictable = 0, true }

// allows reports whether [off, end) may be sent early as a part of an Upload of
// size bytes.
func (p *prediction) allows(off, end, size int64) bool {
	if p.size != size {
		return false
	}
	for i := off / p.chunk; i*p.chunk < end; i++ {
		if !p.full[i] || !p.confirmed[i] {
			return false
		}
	}
	return true
}

// noteWritten looks at what a change has just filled. mu is held.
func (s *session) noteWritten(off, end int64) {
	if s.prediction.noteWritten(&s.content, off, end) {
		s.hashAhead()
		s.predictSize()
	}
}

// predictSize starts asking for the size, if a full chunk waits for an answer. mu
// is held.
func (s *session) predictSize() {
	if s.prediction.asking || s.prediction.unpredictable || s.unlinked || s.u.ctx.Err() != nil ||
		s.nameClass() != nameFinal {
		return
	}
	if err := s.openFile(); err != nil {
		return // it will be sent at close, if it can be read then
	}
	s.prediction.asking = true
	s.u.wg.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for !s.prediction.unpredictable && s.predictNext() {
		}
		s.prediction.asking = false
		s.closeFile()
	})
}

// predictNext asks about one full chunk that is not confirmed, and reports whether
// there was one. mu is held, but not while asking.
func (s *session) predictNext() bool {
	p := &s.prediction
	if s.rec.State != state.Writing || s.unlinked {
		return false // nothing goes early any more
	}
	chunk, ok := p.next()
	if !ok {
		return false
	}
	revision := s.content.revision
	size, known := s.askForSize(chunk)
	if s.content.revision != revision || s.rec.State != state.Writing || s.unlinked {
		return true // much may have happened meanwhile: look again
	}
	switch {
	case !known, size < s.content.size, size > api.MaxUpload, p.size != 0 && p.size != size:
		p.giveUp()
		return false
	case s.xfer == nil && !s.inTime(size):
		p.unpredictable = true
		return false
	}
	p.confirm(chunk, size, s.content.written)
	if s.xfer == nil && !s.commits.running {
		s.divide(s.newTransfer(size))
	}
	s.pump()
	return true
}

// askForSize predicts the size with this chunk full: by the hint, by the size that
// was set ahead of the data, or by the predictor. mu is held, but not while asking.
func (s *session) askForSize(chunk int64) (size int64, ok bool) {
	path, current, ahead, predictor := s.rec.Path, s.content.size, s.content.ahead, s.prediction.predictor
	off := chunk * s.u.chunk
	written, end := s.content.written.prefix(), min(off+s.u.chunk, current)
	file := s.file.f
	s.unlocked(func() {
		if hint, found := s.u.setting(path, AttrSizeHint); found {
			size, _ = strconv.ParseInt(hint, 10, 64)
			ok = size >= current
		}
		switch {
		case ok:
		case ahead:
			size, ok = current, true
		case predictor != nil:
			size, ok = predictor.Size(s.u.ctx, file, off, end-off, written)
		}
	})
	return size, ok
}

// inTime reports whether an Upload of size bytes, declared now, would be
// completed well before it expires, at the rates seen. mu is held.
func (s *session) inTime(size int64) bool {
	written := s.content.written.total() // in whatever order the kernel sent it
	left := float64(size - written)
	rate := float64(written) / max(time.Since(s.content.began).Seconds(), 1e-3)
	need := left / max(rate, 1)
	if line := s.u.line.rate(); line > 0 {
		need = max(need, float64(size)/line)
	}
	return need < earlyLimit.Seconds()
}
