package uploader

import "math"

// lostRanges are the bytes that a failed write has left missing. Write-back tells
// a program that its write has succeeded before the daemon sees it, so only a
// later close or fsync can report the failure. The content is not sent until each
// range has been written again or truncated away. The session's mutex guards it.
type lostRanges struct {
	ranges extents
	err    error // of the last failed write; nil while ranges is empty
}

// add records that [off, end) is missing because of err.
func (l *lostRanges) add(off, end int64, err error) {
	l.ranges.add(off, end)
	l.err = err
}

// addAll records that any byte may be missing: which ones was forgotten.
func (l *lostRanges) addAll(err error) { l.add(0, math.MaxInt64, err) }

// any reports whether bytes are missing.
func (l *lostRanges) any() bool { return len(l.ranges) > 0 }

// clear takes [off, end) out, which has been written or truncated away. It reports
// whether the content has become whole by it.
func (l *lostRanges) clear(off, end int64) (whole bool) {
	if !l.any() {
		return false
	}
	if l.ranges.remove(off, end); l.any() {
		return false
	}
	l.err = nil
	return true
}
