package uploader

import "sort"

// extent is the byte range [off, end) of a file.
type extent struct{ off, end int64 }

// extents is a set of bytes, kept as sorted ranges that neither touch nor
// overlap. A copy has one range, whatever its size; the kernel's out-of-order
// write-back makes a handful. Not safe for concurrent use.
type extents []extent

// total is how many bytes are in the set.
func (x extents) total() (n int64) {
	for _, e := range x {
		n += e.end - e.off
	}
	return n
}

// add puts [off, end) into the set.
func (x *extents) add(off, end int64) {
	if off >= end {
		return
	}
	s := *x
	// [i, j) are the ranges that touch the new one.
	i := sort.Search(len(s), func(i int) bool { return s[i].end >= off })
	j := sort.Search(len(s), func(j int) bool { return s[j].off > end })
	if i < j {
		off, end = min(off, s[i].off), max(end, s[j-1].end)
	}
	*x = replace(s, i, j, extent{off, end})
}

// remove takes [off, end) out of the set.
func (x *extents) remove(off, end int64) {
	if off >= end {
		return
	}
	s := *x
	// [i, j) are the ranges that overlap the removed one.
	i := sort.Search(len(s), func(i int) bool { return s[i].end > off })
	j := sort.Search(len(s), func(j int) bool { return s[j].off >= end })
	if i >= j {
		return
	}
	var rest []extent
	if s[i].off < off {
		rest = append(rest, extent{s[i].off, off})
	}
	if s[j-1].end > end {
		rest = append(rest, extent{end, s[j-1].end})
	}
	*x = replace(s, i, j, rest...)
}

// contains reports whether every byte of [off, end) is in the set.
func (x extents) contains(off, end int64) bool {
	if off >= end {
		return true
	}
	i := sort.Search(len(x), func(i int) bool { return x[i].end > off })
	return i < len(x) && x[i].off <= off && x[i].end >= end
}

// prefix is the end of the range that starts at 0, or 0.
func (x extents) prefix() int64 {
	if len(x) > 0 && x[0].off == 0 {
		return x[0].end
	}
	return 0
}

// replace puts with in the place of s[i:j], in s itself where it fits: the
// common append to the last range must not allocate.
func replace(s extents, i, j int, with ...extent) extents {
	if len(with) == 1 && j == i+1 {
		s[i] = with[0]
		return s
	}
	tail := append(extents(nil), s[j:]...)
	return append(append(s[:i], with...), tail...)
}
