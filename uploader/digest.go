package uploader

import (
	"context"
	"crypto/md5"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"

	"uploadfs/uploader/api"
)

// digest is the running MD5 of a file. MD5 has one order, the file's, and runs
// slower than a disk or a fast line, so it starts while the file is still being
// written and goes on beside the sending. It keeps its state at every block: an
// edit costs the hashing from that block on, not from the start.
type digest struct {
	block int64

	ahead bool // hashAhead is at work; the session's mutex guards it

	mu sync.Mutex // one hashing at a time
	// marks[i] is the state after block i.
	marks [][]byte
	gens  []uint64 // gens[i]: the generation at which block i was read
	crcs  []uint32 // crcs[i]: the CRC-32C of block i as it was read
	tail  uint32   // the CRC-32C of what followed the last block when all was hashed
}

// digestBuffer is how much is read at once: large enough for few system calls,
// small enough to stay in a core's cache between reading and hashing.
const digestBuffer = 256 << 10

// advance hashes file from where it stands up to end, or to the last whole block
// before end unless it is the size of the file. stale reports whether [off, end)
// changed after the generation given; current is asked for the generation before
// each block. It returns the hex digest of the first end bytes if those are
// whole, else "".
func (d *digest) advance(ctx context.Context, file io.ReaderAt, end int64, whole bool,
	current func() uint64, stale func(off, end int64, gen uint64) bool) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	done := 0
	for done < len(d.gens) && int64(done+1)*d.block <= end &&
		!stale(int64(done)*d.block, int64(done+1)*d.block, d.gens[done]) {
		done++
	}
	d.gens, d.crcs = d.gens[:done], d.crcs[:done]
	h := md5.New()
	if done > 0 {
		d.marks = d.marks[:done]
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(d.marks[done-1]); err != nil {
			return "", fmt.Errorf("md5 state: %w", err)
		}
	} else {
		d.marks = nil
	}
	buf := make([]byte, min(digestBuffer, end))
	for off := int64(done) * d.block; off+d.block <= end; off += d.block {
		gen := current()
		crc, err := hashRange(ctx, h, file, off, off+d.block, buf)
		if err != nil {
			return "", err
		}
		state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return "", fmt.Errorf("md5 state: %w", err)
		}
		d.marks, d.gens, d.crcs = append(d.marks, state), append(d.gens, gen), append(d.crcs, crc)
	}
	if !whole {
		return "", nil
	}
	var err error
	if d.tail, err = hashRange(ctx, h, file, int64(len(d.gens))*d.block, end, buf); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// read is the CRC-32C of each block of the first size bytes as they were hashed; the
// last one may be shorter. All must be hashed.
func (d *digest) read(size int64) map[extent]uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	crcs := map[extent]uint32{}
	off := int64(0)
	for _, crc := range d.crcs {
		crcs[extent{off, off + d.block}] = crc
		off += d.block
	}
	if off < size {
		crcs[extent{off, size}] = d.tail
	}
	return crcs
}

// recheck compares what was hashed with what is in file now, block by block, and
// forgets everything from the first block that differs.
func (d *digest) recheck(ctx context.Context, file io.ReaderAt) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, was := range d.crcs {
		same, err := rangeMatches(ctx, file, int64(i)*d.block, d.block, was)
		if err != nil {
			return err
		}
		if !same {
			d.marks, d.gens, d.crcs = d.marks[:i], d.gens[:i], d.crcs[:i]
			return nil
		}
	}
	return nil
}

// hashRange reads [off, end) of file into h, and returns its CRC-32C.
func hashRange(ctx context.Context, h hash.Hash, file io.ReaderAt, off, end int64, buf []byte) (crc uint32, err error) {
	for off < end {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		h.Write(buf[:n])
		crc = crc32.Update(crc, castagnoli, buf[:n])
		off += int64(n)
		if err != nil && (err != io.EOF || off < end) {
			return 0, api.LocalError("read", err)
		}
	}
	return crc, nil
}

// hashAhead hashes in the background what is full from the file's start on, so
// that little is left at close. mu is held.
func (s *session) hashAhead() {
	if !s.u.opts.Checksum || s.digest.ahead || s.commits.running || s.unlinked || s.u.ctx.Err() != nil {
		return
	}
	if s.openFile() != nil {
		return
	}
	s.digest.ahead = true
	s.u.wg.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for done := int64(-1); !s.commits.running; {
			end := s.content.written.prefix() / s.u.chunk * s.u.chunk
			if end <= done {
				break
			}
			file := s.file.f
			var err error
			s.unlocked(func() { _, err = s.digest.advance(s.u.ctx, file, end, false, s.generation, s.stale) })
			if err != nil {
				break // the commit meets it again, and reports it
			}
			done = end
		}
		s.digest.ahead = false
		s.closeFile()
	})
}

// generation is asked by a digest; it locks.
func (s *session) generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.gen
}

// stale is asked by a digest; it locks.
func (s *session) stale(off, end int64, gen uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.changedAfter(off, end, gen)
}

// hashing is the hashing of a content to its end, beside its sending.
type hashing struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// hashToEnd starts the hashing of the target's content for a commit. It goes on from what was hashed while
// the file was written, which in passthrough is compared with the file first. mu
// is held.
func (s *session) hashToEnd(t *target) *hashing {
	ctx, cancel := context.WithCancel(s.u.ctx)
	h := &hashing{cancel: cancel, done: make(chan struct{})}
	if t.hashed {
		close(h.done)
		return h
	}
	file, size, observer := s.file.f, t.size, s.observer
	s.file.uses++ // until the hashing is over
	s.u.wg.Go(func() {
		h.err = observer.recheckDigest(ctx, file)
		var md5 string
		if h.err == nil {
			md5, h.err = s.digest.advance(ctx, file, size, true, s.generation, s.stale)
		}
		read := s.digest.read(size)
		s.mu.Lock()
		if h.err == nil && observer.hashed(t, read) {
			t.hashed, t.md5 = true, md5
		}
		s.closeFile()
		s.mu.Unlock()
		close(h.done)
	})
	return h
}

// wait waits until the hashing is over.
func (h *hashing) wait(ctx context.Context) error {
	select {
	case <-h.done:
		return h.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop ends the hashing if it is not needed any more.
func (h *hashing) stop() { h.cancel() }
