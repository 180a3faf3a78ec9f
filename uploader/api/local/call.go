package local

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// call is one request from its headers to its answer. Only the request's goroutine uses it, except for abortIO.
type call struct {
	s         *Server
	w         http.ResponseWriter
	r         *http.Request
	rc        *http.ResponseController
	op        Op
	id        string // the {id} of the path, as the client wrote it
	requestID string
	body      body
	faults    *Faults // as they were when the request began
	failing   bool    // chosen by Faults.FailEvery
	pace      pacer

	status int   // answered; 0 for none
	sent   int64 // bytes of content
	err    error // the reason of the refusal
}

// sender is an answer that is not JSON.
type sender interface {
	send(c *call) error
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r, rc: http.NewResponseController(w), op: OpUnknown, requestID: newID(requestPrefix)}
	c.body = body{c: c, src: r.Body, eof: r.Body == nil || r.Body == http.NoBody}
	w.Header().Set("X-Request-Id", c.requestID)
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat)) // by the clock that created_at is from
	if !s.enter(c) {
		c.refuse(closing())
		return
	}
	defer s.leave(c)
	defer s.observe(c, time.Now())

	found, id, allowed := find(r.Method, r.URL.Path)
	if found != nil {
		c.op, c.id = found.op, id
	}
	s.counters.request(c.op)
	answer, err := c.run(found, allowed)
	if err == nil {
		err = c.answer(answer)
	}
	if err != nil {
		c.fail(err)
	}
}

// run checks the request and calls its handler.
func (c *call) run(found *route, allowed []string) (any, error) {
	c.useFaults(c.s.faults.Load())
	if err := c.at(StageHead); err != nil {
		return nil, err
	}
	if err := c.s.authorize(c.r); err != nil {
		return nil, err
	}
	switch {
	case found != nil:
	case len(allowed) > 0:
		c.w.Header().Set("Allow", strings.Join(allowed, ", "))
		return nil, refuse(http.StatusMethodNotAllowed, "", "Method %s is not allowed here.", clip(c.r.Method))
	default:
		return nil, refuse(http.StatusNotFound, "", "Invalid URL (%s %s)", clip(c.r.Method), clip(c.r.URL.Path))
	}
	answer, err := found.handler(c.s, c)
	if err != nil {
		return nil, err
	}
	return answer, c.at(StageDone)
}

// answer sends what a handler returned.
func (c *call) answer(answer any) error {
	if content, ok := answer.(sender); ok {
		return content.send(c)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	c.write(http.StatusOK, "application/json", append(b, '\n'))
	return nil
}

// fail answers with an error, or breaks the connection where that is no longer possible.
func (c *call) fail(err error) {
	c.err = err
	var refusal *apiError
	var fault *faultError
	switch {
	case c.status != 0: // the answer has begun: only a broken connection can report the error
		c.abort()
	case errors.As(err, &fault):
		c.fault(fault.Fault)
	case errors.As(err, &refusal):
		c.refuse(refusal)
	default:
		c.s.warn("request failed", err)
		c.refuse(internal(err))
	}
}

func (c *call) refuse(e *apiError) { c.write(e.Status, "application/json", e.envelope()) }

// write sends a whole answer, and then reads the rest of the request's body.
//
// net/http alone would read at most 256 KiB of it and close the connection. A client that is still writing would get
// a reset, and might never read the answer.
func (c *call) write(status int, contentType string, b []byte) {
	c.status = status
	early := !c.body.eof
	if early {
		// Without this, net/http reads the body before it writes the first byte. It is not supported by a recorder in
		// a test and by HTTP/2, where no connection would be closed.
		early = c.rc.EnableFullDuplex() == nil
	}
	h := c.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	last := status == http.StatusUnauthorized && !c.body.drainable()
	if last {
		h.Set("Connection", "close") // net/http closes it after the drain, and gives the client time to read
	}
	c.rc.SetWriteDeadline(time.Now().Add(c.s.opt.StallTimeout))
	c.w.WriteHeader(status)
	c.w.Write(b) // it fails only if the client has disconnected
	if early && c.rc.Flush() == nil && !c.body.drain() && !last {
		c.hangUp()
	}
}

// hangUp closes the connection after an answer whose request did not end. net/http would take what still comes of it for
// the next request, and wait for that.
func (c *call) hangUp() {
	if conn, _, err := c.rc.Hijack(); err == nil {
		conn.Close()
	}
}

// abort breaks the connection so that the client sees a reset.
func (c *call) abort() {
	conn, _, err := c.rc.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the documented way where the connection cannot be hijacked
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) // RST instead of FIN
	}
	conn.Close()
}

// abortIO makes reads and writes of the call fail at once. Close calls it with callMu held, so the call has not ended.
func (c *call) abortIO() {
	past := time.Unix(1, 0)
	c.rc.SetReadDeadline(past)
	c.rc.SetWriteDeadline(past)
}

// stopped reports whether Close was called.
func (c *call) stopped() bool {
	select {
	case <-c.s.done:
		return true
	default:
		return false
	}
}

// pause waits for d, or until the client disconnects or the server closes.
func (c *call) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.r.Context().Done():
	case <-c.s.done:
	}
}
