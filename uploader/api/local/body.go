package local

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	maxJSONBody = 1 << 20 // the 8,192 IDs of an 8 GiB Upload of 1 MiB parts take a third of it
	maxFraming  = 1 << 20 // a form's delimiters, headers and small fields

	drainTimeout = time.Minute // for the rest of a refused body

	// After a 401 less is drained: the client may be anyone.
	unauthorizedDrain        = 1 << 20 // bytes
	unauthorizedDrainTimeout = 2 * time.Second
)

// body reads a request's body. It enforces a limit on its size and StallTimeout between reads, and injects faults.
// Its errors are answers: *apiError or *faultError.
type body struct {
	c     *call
	src   io.ReadCloser
	limit int64
	n     int64 // bytes read
	eof   bool
	err   error // sticky
}

// open sets the limit. A body with a larger Content-Length is refused before a byte of it is read.
func (b *body) open(limit int64) error {
	b.limit = limit
	if b.c.r.ContentLength > limit {
		return bodyTooLarge()
	}
	return nil
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.eof {
		return 0, io.EOF
	}
	n, err := b.read(p[:b.c.pace.bound(int64(len(p)))], time.Now().Add(b.c.s.opt.StallTimeout))
	b.c.s.counters.bodyBytes.Add(int64(n))
	if n > 0 {
		b.c.pace.wait(b.c, n)
		if fault := b.c.at(StageBody); fault != nil {
			b.err = fault
			return 0, fault
		}
	}
	switch {
	case b.n > b.limit:
		b.err = bodyTooLarge()
	case err == io.EOF:
		return n, io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded) && b.c.stopped():
		b.err = closing()
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.err = refuse(http.StatusRequestTimeout, "", "No data came for %v; send the request again.", b.c.s.opt.StallTimeout)
	case err != nil: // the client has disconnected; the answer is for our own log
		b.err = badRequest("", "The request body ended early: %v.", err)
	}
	return n, b.err
}

// read reads once and waits until deadline at most.
func (b *body) read(p []byte, deadline time.Time) (int, error) {
	b.c.rc.SetReadDeadline(deadline) // not supported by a recorder, which does not stall
	if b.c.stopped() {               // after the line above, which may have replaced the deadline that abortIO set
		return 0, os.ErrDeadlineExceeded
	}
	n, err := b.src.Read(p)
	b.n += int64(n)
	b.eof = err == io.EOF // net/http then removes the deadline and watches for a disconnect
	return n, err
}

// drainable reports whether drain can reach the end of the body after a 401.
func (b *body) drainable() bool {
	return b.eof || b.c.r.ContentLength >= 0 && b.c.r.ContentLength-b.n <= unauthorizedDrain
}

// drain reads and drops the rest of the body after an early answer, within bounds. It returns whether the end was
// reached, or is not to be waited for.
func (b *body) drain() (ended bool) {
	if b.n == 0 && b.c.r.Header.Get("Expect") != "" {
		return true // the client waits for a 100 that will not come; net/http closes the connection
	}
	// Enough for a part sent to the wrong place, and for a File a little too large.
	most, timeout := b.limit+b.c.s.opt.MaxPartBytes+maxFraming+1, drainTimeout
	if b.c.status == http.StatusUnauthorized {
		most, timeout = b.n+unauthorizedDrain, unauthorizedDrainTimeout
	}
	end := time.Now().Add(timeout)
	withBuffer(func(buf []byte) {
		for !b.eof && b.n < most {
			deadline := time.Now().Add(b.c.s.opt.StallTimeout)
			if deadline.After(end) {
				deadline = end
			}
			if _, err := b.read(buf[:min(int64(len(buf)), most-b.n)], deadline); err != nil {
				return
			}
		}
	})
	return b.eof
}
