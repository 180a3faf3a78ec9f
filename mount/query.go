package mount

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// The fields of a request for a Report.
const (
	fieldState   = "state" // may be repeated
	fieldSending = "sending"
	fieldQueued  = "queued"
	fieldAfter   = "after"
	fieldLimit   = "limit"
)

// queryValues is how a client sends a query.
func queryValues(q uploader.Query) url.Values {
	v := url.Values{}
	for _, s := range q.States {
		v.Add(fieldState, string(s))
	}
	for name, set := range map[string]bool{fieldSending: q.Sending, fieldQueued: q.Queued} {
		if set {
			v.Set(name, "true")
		}
	}
	if q.After != "" {
		v.Set(fieldAfter, q.After)
	}
	if q.Limit > 0 {
		v.Set(fieldLimit, strconv.Itoa(q.Limit))
	}
	return v
}

// nextPage is a path as text: the after of the next query. JSON knows only Unicode, and a
// path may be any bytes, so percent signs stand for what is none.
func nextPage(path string) string {
	var text strings.Builder
	for path != "" {
		r, n := utf8.DecodeRuneInString(path)
		if r == '%' || r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&text, "%%%02X", path[0])
		} else {
			text.WriteString(path[:n])
		}
		path = path[n:]
	}
	return text.String()
}

// parseQuery reads what queryValues has written.
func parseQuery(v url.Values) (q uploader.Query, err error) {
	for _, name := range v[fieldState] {
		s := state.State(name)
		if !slices.Contains(state.All, s) {
			return q, fmt.Errorf("unknown state %q", name)
		}
		q.States = append(q.States, s)
	}
	q.Sending, q.Queued = v.Has(fieldSending), v.Has(fieldQueued)
	if q.After, err = url.PathUnescape(v.Get(fieldAfter)); err != nil {
		return q, fmt.Errorf("after: %w: give what next says", err)
	}
	if text := v.Get(fieldLimit); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 0 {
			return q, fmt.Errorf("limit %q: want a number", text)
		}
	}
	return q, nil
}
