package local

import (
	"net/url"
	"slices"
)

const maxListLimit = 10000 // also the default

// listQuery is what GET /v1/files asks for.
type listQuery struct {
	purpose   string // empty: any
	after     string // empty: from the beginning
	limit     int
	ascending bool
}

func parseListQuery(q url.Values) (listQuery, error) {
	in := listQuery{purpose: q.Get("purpose"), after: q.Get("after"), limit: maxListLimit}
	for name := range q {
		if !slices.Contains([]string{"purpose", "after", "limit", "order"}, name) {
			return in, unknownParameter(name)
		}
	}
	if q.Has("limit") {
		n, err := decimal("limit", q.Get("limit"))
		if err != nil {
			return in, err
		}
		if n < 1 || n > maxListLimit {
			return in, badRequest("limit", "Invalid 'limit': it must be from 1 to %d.", maxListLimit)
		}
		in.limit = int(n)
	}
	switch order := q.Get("order"); {
	case order == "asc":
		in.ascending = true
	case q.Has("order") && order != "desc":
		return in, badRequest("order", "'%s' is not one of ['asc', 'desc'] - 'order'", clip(order))
	}
	return in, nil
}

// listFiles answers GET /v1/files, newest first unless asked otherwise.
func (s *Server) listFiles(c *call) (any, error) {
	query, err := parseListQuery(c.r.URL.Query())
	if err != nil {
		return nil, err
	}
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.page(query, c.faults)
}

// page returns one page of the Files. mu is held.
func (s *Server) page(query listQuery, faults *Faults) (*listObject, error) {
	step, at := -1, len(s.ordered)-1
	if query.ascending {
		step, at = 1, 0
	}
	if query.after != "" {
		f, err := s.liveFile(query.after)
		if err != nil {
			return nil, badRequest("after", "No such File object: %s", clip(query.after))
		}
		at, _ = s.position(f)
		at += step
	}
	list := &listObject{Object: "list", Data: []*fileObject{}}
	for ; at >= 0 && at < len(s.ordered); at += step {
		f := s.ordered[at]
		if !s.isLive(f) || s.now().Before(f.CreatedAt.Add(faults.ListLag)) || query.purpose != "" && f.Purpose != query.purpose {
			continue
		}
		if len(list.Data) == query.limit {
			list.HasMore = true
			break
		}
		list.Data = append(list.Data, f.object(faults))
	}
	if n := len(list.Data); n > 0 {
		list.FirstID, list.LastID = &list.Data[0].ID, &list.Data[n-1].ID
	}
	return list, nil
}
