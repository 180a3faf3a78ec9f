package local

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// window is a piece of a File.
type window struct {
	offset, size int64
	partial      bool // asked for by a Range
}

// contentRange is the header that names the window.
func (w window) contentRange(total int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", w.offset, w.offset+w.size-1, total)
}

// parseRange reads a Range header of one range. It ignores another unit and several ranges, as RFC 9110 allows. It
// refuses a range beyond the end.
func parseRange(header string, total int64) (window, error) {
	whole := window{size: total}
	spec, isBytes := strings.CutPrefix(header, "bytes=")
	first, last, isRange := strings.Cut(spec, "-")
	from, hasFrom := number(first)
	to, hasTo := number(last)
	switch {
	case !isBytes || !isRange, first != "" && !hasFrom, last != "" && !hasTo:
		return whole, nil
	case !hasFrom && !hasTo, hasFrom && hasTo && to < from:
		return whole, nil
	case !hasFrom: // the last bytes
		from, to = max(0, total-to), total-1
	case !hasTo:
		to = total - 1
	}
	if from >= total || to < from {
		return whole, refuse(http.StatusRequestedRangeNotSatisfiable, "",
			"The File has %d bytes; the range is beyond them.", total)
	}
	return window{offset: from, size: min(to, total-1) - from + 1, partial: true}, nil
}

// number parses a number that is neither signed nor empty.
func number(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}
