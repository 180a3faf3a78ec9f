package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"uploadfs/uploader/state"
)

// View is what the page shows.
type View struct {
	MountPoint string              `json:"mount_point"`
	Endpoint   string              `json:"endpoint"`
	WritePath  string              `json:"write_path"`
	Ending     bool                `json:"ending"` // unmounted; what is pending is being drained
	Notes      []string            `json:"notes"`
	Counts     map[state.State]int `json:"counts"`
	Slots      int                 `json:"slots"`
	SlotsInUse int                 `json:"slots_in_use"`
	DiskUsed   int64               `json:"disk_used_bytes"`
	DiskFree   int64               `json:"disk_free_bytes"`
	Files      []File              `json:"files"`     // the first ones of those that are not completed; see [Rank]
	More       int                 `json:"more"`      // how many there are beside them
	Completed  []File              `json:"completed"` // the last ones, the latest first

	// Set by the server.
	Sent  int64   `json:"sent_bytes"`
	Rates []int64 `json:"rates"` // bytes per second, of the last seconds in order
}

// File is one file of a [View].
type File struct {
	Path        string      `json:"path"` // below the mount
	State       state.State `json:"state"`
	Size        int64       `json:"size_bytes"`
	Sent        int64       `json:"sent_bytes"` // of this content
	Acked       int         `json:"parts_acknowledged"`
	Total       int         `json:"parts_total"`
	Parts       string      `json:"parts,omitempty"` // a letter for each, see uploader.Status
	FileID      string      `json:"file_id,omitempty"`
	Error       string      `json:"error,omitempty"`
	NextAttempt time.Time   `json:"next_attempt,omitzero"`
	Rate        int64       `json:"rate,omitempty"` // bytes per second
	ETA         int64       `json:"eta,omitempty"`  // seconds
}

// Rank orders files by how much a user wants to see them: failures, then what is under
// way, then what waits.
func Rank(f File) int {
	switch {
	case f.State == state.Failed:
		return 0
	case f.State == state.Interrupted:
		return 1
	case f.State == state.Retrying:
		return 2
	case f.Parts != "":
		return 3
	case f.State == state.Uploading:
		return 4
	}
	return 5
}

const (
	tick    = time.Second
	plotted = 300 // seconds
)

// plot keeps how much was sent in each of the last seconds.
type plot struct {
	mu    sync.Mutex
	rates []int64 // bytes per second, the latest last
	count int64   // of all rates so far
}

// run samples until ctx ends.
func (p *plot) run(ctx context.Context, sent func() int64) {
	t := time.NewTicker(tick)
	defer t.Stop()
	last, at := sent(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			n := sent()
			rate := float64(n-last) / max(now.Sub(at).Seconds(), 1e-3)
			last, at = n, now
			p.add(int64(rate))
		}
	}
}

func (p *plot) add(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rates = append(p.rates, max(rate, 0)); len(p.rates) > plotted {
		p.rates = p.rates[1:]
	}
	p.count++
}

// since returns the rates after the first seen ones, and how many there were in all.
func (p *plot) since(seen int64) ([]int64, int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(p.count-seen, int64(len(p.rates)))
	return append([]int64{}, p.rates[int64(len(p.rates))-n:]...), p.count
}

// events sends a View at once and then each second, as server-sent events.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.watchers <- struct{}{}:
		defer func() { <-s.watchers }()
	default:
		http.Error(w, "too many pages are open: close one", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Time{}); err != nil { // the deadline of the request would end the events
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	t := time.NewTicker(tick)
	defer t.Stop()
	seen := int64(0)
	for {
		view, err := s.source.View(r.Context())
		if err == nil {
			view.Sent = s.source.Sent()
			view.Rates, seen = s.plot.since(seen)
			err = sendEvent(w, out, view)
		}
		if err != nil {
			return // the page connects again
		}
		select {
		case <-r.Context().Done():
			return
		case <-t.C:
		}
	}
}

// sendEvent writes one event. A client that does not read is given up.
func sendEvent(w http.ResponseWriter, out *http.ResponseController, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := out.SetWriteDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil {
		return err
	}
	return out.Flush()
}
