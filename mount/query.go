package mount

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"

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
	q.After = v.Get(fieldAfter)
	if text := v.Get(fieldLimit); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 0 {
			return q, fmt.Errorf("limit %q: want a number", text)
		}
	}
	return q, nil
}
