package uploader

import (
	"slices"
	"time"

	"uploadfs/uploader/api"
)

// content is what a session knows of its file's bytes: how many there are,
// which were written since it began to change, and when each block changed last.
// "When" is a generation: a counter that every change increases. A part that was
// read at a generation is current as long as no block under it has a later one.
//
// A change is counted before it happens and again afterwards. Counting it only
// afterwards would let a commit finish while the change is half done; counting
// it only before would let a part that was read meanwhile pass as current.
//
// Not safe for concurrent use; the session's mutex guards it.
type content struct {
	block    int64     // bytes under one generation
	revision int       // counts contents: one begins with the first change after a committed one
	began    time.Time // the first change of this revision
	size     int64
	gen      uint64
	gens     []uint64 // by block; missing ones have never changed
	written  extents  // since the content was last known to be committed, or made; a hint, see maxWritten
	pending  []int64  // where changes under way begin: counted before, not yet afterwards
	ahead    bool     // the size was set before the data (ftruncate, fallocate)

	targets []*target // of the commit under way and of the next one
}

// maxWritten is how many separate ranges of written are kept. A program that
// writes at random over a large file would make millions; then nothing of it goes
// before the close, which is all that is lost.
const maxWritten = 4096

// touch counts a change of [off, end). It does not change the size.
func (c *content) touch(off, end int64) {
	c.gen++
	if off >= end {
		return
	}
	c.touchTargets(off)
	last := c.blockOf(end - 1)
	for int64(len(c.gens)) <= last {
		c.gens = append(c.gens, 0)
	}
	for i := c.blockOf(off); i <= last; i++ {
		c.gens[i] = c.gen
	}
}

// touchTargets tells the targets that bytes from off on have changed.
func (c *content) touchTargets(off int64) {
	for _, t := range c.targets {
		t.touched(off)
	}
}

// begin counts a change of [off, end) that is about to happen.
func (c *content) begin(off, end int64) {
	c.touch(off, end)
	c.pending = append(c.pending, off)
}

// end ends a change that began at off.
func (c *content) end(off int64) {
	i := slices.Index(c.pending, off)
	c.pending = slices.Delete(c.pending, i, i+1)
}

// blockOf is the number of the block that the byte at off is in. What lies
// beyond the largest Upload counts as one: a write is tried at any offset, and a
// file with a hole of 8 EiB must not need a generation for each block of it.
func (c *content) blockOf(off int64) int64 { return min(off, api.MaxUpload) / c.block }

// wrote records that [off, end) now holds what a writer put there.
func (c *content) wrote(off, end int64) {
	c.touch(off, end)
	if c.written.add(off, end); len(c.written) > maxWritten {
		c.written = nil
	}
	c.size = max(c.size, end)
}

// resize records a new size. Bytes that come or go count as changed; none that
// come count as written.
func (c *content) resize(size int64) {
	c.touch(min(size, c.size), max(size, c.size))
	if size < c.size {
		c.written.remove(size, c.size)
	} else if size > c.size {
		c.ahead = true
	}
	c.size = size
}

// changedAfter reports whether any byte of [off, end) changed later than gen.
func (c *content) changedAfter(off, end int64, gen uint64) bool {
	if off >= end {
		return false
	}
	for i := c.blockOf(off); i <= c.blockOf(end-1) && i < int64(len(c.gens)); i++ {
		if c.gens[i] > gen {
			return true
		}
	}
	return false
}

// startRevision begins another content.
func (c *content) startRevision() {
	c.revision++
	c.began = time.Now()
}

// clearWritten forgets what was written: the content is committed, and from now on
// an old byte is not one that a writer has just put there.
func (c *content) clearWritten() {
	c.written = nil
	c.ahead = false
}
