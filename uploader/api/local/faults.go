package local

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Stage is a place in a request's life where it can be made to fail.
type Stage string

// The stages, in order. Every request passes StageHead, those with a body StageBody; refused ones end there.
const (
	StageHead     Stage = "head"     // the headers are read; nothing is checked, not even the key
	StageBody     Stage = "body"     // after every read of the body, see Point.Received
	StageReceived Stage = "received" // the whole body is read; nothing has taken effect
	StageDone     Stage = "done"     // the request is carried out (the part stored, the File made), but not answered
)

// Point is where a request is.
type Point struct {
	Op       Op
	Stage    Stage
	ID       string        // the Upload or File that the path names, if any
	Received int64         // bytes of the body read so far, the form's framing included
	Request  *http.Request // its Body must not be used
}

// InterceptFunc decides about a request at a stage: nil lets it continue. It is called on the request's goroutine, by
// many requests at once. It may block until Request.Context() ends, to stop a request at a stage.
type InterceptFunc func(Point) *Fault

// Fault is what happens to a request instead of success. Without Reset and Status it is only a delay.
type Fault struct {
	// Delay is waited first.
	Delay time.Duration

	// Reset breaks the connection (TCP RST); nothing is answered.
	Reset bool

	// Status, Code and Message are answered in the error envelope.
	Status  int
	Code    string
	Message string

	// RetryAfter is sent in seconds, rounded up, if positive.
	RetryAfter time.Duration

	// RawBody, unless empty, is sent as text/html instead of the envelope, as proxies do.
	RawBody string
}

// faultError carries a Fault to the code that answers requests.
type faultError struct{ *Fault }

func (e *faultError) Error() string {
	if e.Reset {
		return "fault on request: reset"
	}
	return fmt.Sprintf("fault on request: status %d", e.Status)
}

// FaultMode says how Faults.FailEvery fails a request.
type FaultMode string

// The modes.
const (
	FaultServerError FaultMode = "500"   // answered 500 before anything is done
	FaultRateLimit   FaultMode = "429"   // answered 429 with Retry-After before anything is done
	FaultReset       FaultMode = "reset" // the connection is reset, in the middle of the body if there is one
	FaultLost        FaultMode = "lost"  // carried out, but the connection is reset instead of an answer
)

// Faults simulates a bad network and a bad service.
type Faults struct {
	// FailEvery fails every Nth request as Mode says; 0 fails none.
	FailEvery int
	Mode      FaultMode

	// RetryAfter goes with FaultRateLimit, 1 s if zero.
	RetryAfter time.Duration

	// Latency delays every request before anything is done.
	Latency time.Duration

	// RatePerConnection bounds the bytes of body per second that one connection sends or receives; 0 is no bound.
	RatePerConnection int64

	// RateTotal bounds the bytes of body per second of all connections together: a line that they share; 0 is no bound.
	RateTotal int64

	// RequestsPerMinute answers 429 to further requests, with a Retry-After; 0 is no bound.
	RequestsPerMinute int

	// ListLag is how long after its creation a File appears in lists. Other calls know it at once.
	ListLag time.Duration

	// NullBytes answers "bytes": null in every File, as a service does that does not know the size yet.
	NullBytes bool
}

// SetIntercept replaces Options.Intercept; nil removes it. Requests under way see the new one at their next stage.
func (s *Server) SetIntercept(f InterceptFunc) { s.intercept.Store(&f) }

// SetFaults replaces Options.Faults, for requests that begin afterwards.
func (s *Server) SetFaults(f Faults) { s.faults.Store(&f) }

// useFaults decides what f does to this request.
func (c *call) useFaults(f *Faults) {
	nth := c.s.counters.faultTurn.Add(1)
	c.failing = f.FailEvery > 0 && nth%int64(f.FailEvery) == 0
	c.faults = f
	// HTTP/1.1 has one request at a time on a connection, so pacing each request paces the connection.
	c.pace.rate, c.pace.total = f.RatePerConnection, f.RateTotal
}

// at marks that the request has reached a stage. It returns the fault that ends the request there, if any.
func (c *call) at(stage Stage) error {
	fault := c.rateFault(stage)
	if intercept := *c.s.intercept.Load(); fault == nil && intercept != nil {
		fault = intercept(Point{Op: c.op, Stage: stage, ID: c.id, Received: c.body.n, Request: c.r})
	}
	if fault == nil {
		return nil
	}
	c.pause(fault.Delay)
	if fault.Reset || fault.Status != 0 {
		return &faultError{fault}
	}
	return nil
}

// rateFault returns what Faults do at a stage.
func (c *call) rateFault(stage Stage) *Fault {
	f := c.faults
	if stage == StageHead {
		c.pause(f.Latency)
	}
	if stage == StageHead && f.RequestsPerMinute > 0 {
		if wait := c.s.requests.take(time.Now(), f.RequestsPerMinute); wait > 0 {
			return tooManyRequests(wait)
		}
	}
	if !c.failing {
		return nil
	}
	hasBody := c.r.ContentLength != 0
	halfway := stage == StageBody && c.body.n >= c.r.ContentLength/2
	switch {
	case f.Mode == FaultServerError && stage == StageHead:
		return &Fault{Status: http.StatusInternalServerError, Message: "The server had an error (on request)."}
	case f.Mode == FaultRateLimit && stage == StageHead:
		return &Fault{Status: http.StatusTooManyRequests, Code: "rate_limit_exceeded",
			Message: "Rate limit reached (on request).", RetryAfter: max(f.RetryAfter, time.Second)}
	case f.Mode == FaultReset && (hasBody && halfway || !hasBody && stage == StageHead):
		return &Fault{Reset: true}
	case f.Mode == FaultLost && stage == StageDone:
		return &Fault{Reset: true}
	}
	return nil
}

// fault answers as a Fault says.
func (c *call) fault(f *Fault) {
	if f.Reset {
		c.abort()
		return
	}
	if f.RetryAfter > 0 {
		seconds := (f.RetryAfter + time.Second - 1) / time.Second
		c.w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	if f.RawBody != "" {
		c.write(f.Status, "text/html", []byte(f.RawBody))
		return
	}
	e := refuse(f.Status, "", "%s", f.Message)
	e.Code = f.Code
	c.refuse(e)
}

// pacer slows a stream down to a rate.
type pacer struct {
	rate  int64     // bytes per second; 0 is no bound
	total int64     // the same, of all streams together
	start time.Time // of the stream
	bytes int64     // since then
}

// bound limits the next step to what the rate allows in about 50 ms.
func (p *pacer) bound(n int64) int64 {
	if p.total > 0 {
		n = min(n, max(1, p.total/20))
	}
	if p.rate <= 0 {
		return n
	}
	if p.start.IsZero() {
		p.start = time.Now()
	}
	return min(n, max(1, p.rate/20))
}

// wait waits until the n bytes of the step are due.
func (p *pacer) wait(c *call, n int) {
	if p.total > 0 {
		c.pause(time.Until(c.s.line.due(time.Now(), int64(n), p.total)))
	}
	if p.rate <= 0 {
		return
	}
	p.bytes += int64(n)
	due := time.Duration(float64(p.bytes) / float64(p.rate) * float64(time.Second))
	c.pause(time.Until(p.start.Add(due)))
}
