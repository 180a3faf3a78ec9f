package uploader

import (
	"math"

	"uploadfs/uploader/backing"
)

// target is the content that a close spoke of: the first size bytes of the file, as
// they were then. Other writers may go on: where none of these bytes has changed
// since, the content still exists, as the beginning of the file. The session's mutex
// guards it.
type target struct {
	gen  uint64 // the content's generation at the close
	size int64  // bytes
	low  int64  // the first byte that is known to have changed since; unchanged if there is none
	tail uint64 // the generation of the last byte's block at the close

	hashed    bool   // md5 is that of this content, or none is wanted
	md5       string // hex
	withdrawn bool   // a later close has decided that nothing is sent

	// In passthrough only, see [polled].
	seen    backing.Info      // size and times at the close
	proven  map[extent]uint32 // the CRC-32C of ranges that were read while the file had them
	foreign bool              // a part was sent that does not have the CRC of its range
}

const unchanged = math.MaxInt64 // of target.low

// touched takes in a change of the bytes from off on.
func (t *target) touched(off int64) { t.low = min(t.low, off) }

// whole reports whether the target's content can still be read. Of a file that has
// not changed it can, and of one that changed below its size it cannot. Of another
// change where it was must be known: exact says that every change is reported with
// its range, proven that each range of the content has a CRC of it.
func (t *target) whole(changed, exact, proven bool) bool {
	return !changed || t.low >= t.size && (exact || proven)
}

// proves reports whether every one of these ranges has a CRC of this content.
func (t *target) proves(ranges []*part) bool {
	if t.foreign {
		return false
	}
	for _, p := range ranges {
		if _, ok := t.proven[p.extent()]; !ok {
			return false
		}
	}
	return true
}

// extent is the range of the part.
func (p *part) extent() extent { return extent{p.off, p.off + p.n} }

// mark is the content as it is now, as the target of a commit. A change that is
// under way is not part of it.
func (c *content) mark() *target {
	t := &target{gen: c.gen, size: c.size, low: unchanged, proven: map[extent]uint32{}}
	for _, off := range c.pending {
		t.touched(off)
	}
	if last := c.blockOf(c.size - 1); c.size > 0 && last < int64(len(c.gens)) {
		t.tail = c.gens[last]
	}
	return t
}

// changedFor is changedAfter for a range of the target's content, if there is one.
// What has changed beyond its size does not count: an append dirties the block that
// the content ends in.
func (c *content) changedFor(t *target, off, end int64, gen uint64) bool {
	if t == nil || t.low < t.size || end > t.size {
		return c.changedAfter(off, end, gen)
	}
	last := c.blockOf(t.size - 1)
	if c.blockOf(end-1) < last {
		return c.changedAfter(off, end, gen)
	}
	return t.tail > gen || c.changedAfter(off, last*c.block, gen)
}
