package uploader

import (
	"context"
	"crypto/md5"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"sync"
)

// digest is the running MD5 of a file. MD5 has one order, the file's, and runs
// slower than a disk or a fast line, so it starts while the file is still being
// written and goes on beside the sending. It keeps its state at every block: an
// edit costs the hashing from that block on, not from the start.
type digest struct {
	block int64

	mu sync.Mutex // one hashing at a time
	// marks[i] is the state before block i, as it was at the generation
	// under which the blocks before it were read.
	marks [][]byte
	gens  []uint64 // gens[i]: the generation at which block i was read
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
	d.gens = d.gens[:done]
	h := md5.New()
	if done > 0 {
		d.marks = d.marks[:done]
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(d.marks[done-1]); err != nil {
			return "", fmt.Errorf("md5 state: %w", err)
		}
	} else {
		d.marks = nil
	}
	buf := make([]byte, digestBuffer)
	for off := int64(done) * d.block; off+d.block <= end; off += d.block {
		gen := current()
		if err := hashRange(ctx, h, file, off, off+d.block, buf); err != nil {
			return "", err
		}
		state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return "", fmt.Errorf("md5 state: %w", err)
		}
		d.marks, d.gens = append(d.marks, state), append(d.gens, gen)
	}
	if !whole {
		return "", nil
	}
	if err := hashRange(ctx, h, file, int64(len(d.gens))*d.block, end, buf); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hashRange reads [off, end) of file into h.
func hashRange(ctx context.Context, h hash.Hash, file io.ReaderAt, off, end int64, buf []byte) error {
	for off < end {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		h.Write(buf[:n])
		off += int64(n)
		if err != nil && (err != io.EOF || off < end) {
			return localError("read", err)
		}
	}
	return nil
}
