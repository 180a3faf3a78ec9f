package local

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Event is a finished request.
type Event struct {
	Op        Op
	ID        string // the Upload or File that the path names, if any
	RequestID string // as sent in x-request-id
	Method    string
	Path      string
	Status    int   // as answered; 0 if the connection was broken instead
	Received  int64 // bytes of the request's body, those dropped after a refusal included
	Sent      int64 // bytes of content
	Duration  time.Duration
	Err       error // why it was refused or broken off
}

// Stats counts what a Server has done since Open. Bytes that were read after a refusal and dropped are not counted.
type Stats struct {
	Connections    int64        // by servers of NewHTTPServer and Serve only
	Requests       map[Op]int64 // begun, refused ones included
	UploadsCreated int64
	PartsStored    int64 // acknowledged, or with the answer lost by a fault
	PartBytes      int64 // in them
	BodyBytes      int64 // of all requests, with the framing of forms
	PartsInFlight  int64 // part requests being received now
	PeakParts      int64 // the maximum of PartsInFlight
	FilesCreated   int64
}

type counters struct {
	connections    atomic.Int64
	uploadsCreated atomic.Int64
	partsStored    atomic.Int64
	partBytes      atomic.Int64
	bodyBytes      atomic.Int64
	filesCreated   atomic.Int64
	faultTurn      atomic.Int64

	// mu guards the following.
	mu       sync.Mutex
	requests map[Op]int64
	inFlight int64
	peak     int64
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	n := &s.counters
	n.mu.Lock()
	defer n.mu.Unlock()
	return Stats{
		Connections:    n.connections.Load(),
		Requests:       maps.Clone(n.requests),
		UploadsCreated: n.uploadsCreated.Load(),
		PartsStored:    n.partsStored.Load(),
		PartBytes:      n.partBytes.Load(),
		BodyBytes:      n.bodyBytes.Load(),
		PartsInFlight:  n.inFlight,
		PeakParts:      n.peak,
		FilesCreated:   n.filesCreated.Load(),
	}
}

func (n *counters) request(op Op) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.requests == nil {
		n.requests = make(map[Op]int64)
	}
	n.requests[op]++
}

// partBegins counts a part in flight until the function it returns is called.
func (n *counters) partBegins() (ends func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inFlight++
	n.peak = max(n.peak, n.inFlight)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.inFlight--
	}
}

// observe calls Options.Observe after a call.
func (s *Server) observe(c *call, began time.Time) {
	if s.opt.Observe == nil {
		return
	}
	s.opt.Observe(Event{
		Op: c.op, ID: c.id, RequestID: c.requestID, Method: c.r.Method, Path: c.r.URL.Path, Status: c.status,
		Received: c.body.n, Sent: c.sent, Duration: time.Since(began), Err: c.err,
	})
}
