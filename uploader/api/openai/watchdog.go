package openai

import (
	"context"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"uploadfs/uploader/api"
)

// phase is how far a request has come, as the watchdog sees it.
type phase int

const (
	// connecting: there is no connection yet. Dialing and the TLS handshake have
	// timeouts of their own.
	connecting phase = iota
	// sending: the peer has not acknowledged all of the request.
	sending
	// waiting: the peer has acknowledged all of it, and has not begun to answer.
	waiting
	// answering: the answer has begun.
	answering
)

// limits says how long each phase may last without progress. In the phase waiting
// there is no progress: its limit is the time for the answer.
type limits struct {
	stall  time.Duration // sending, answering
	answer time.Duration // waiting
}

// of returns the limit of a phase, or 0 for none.
func (l limits) of(p phase) time.Duration {
	switch p {
	case sending, answering:
		return l.stall
	case waiting:
		return l.answer
	default:
		return 0
	}
}

// answerLimit returns how long the answer to a request may take after the peer has
// acknowledged its last byte. The peer may be a proxy that forwards body bytes at
// slowest bytes per second. timeouts earlier attempts were given up in this phase,
// and each doubles the limit.
func answerLimit(least time.Duration, slowest, body int64, timeouts int) time.Duration {
	limit := max(least, duration(2*float64(body)/float64(slowest), time.Second))
	for range timeouts {
		if limit > math.MaxInt64/2 {
			return math.MaxInt64
		}
		limit *= 2
	}
	return limit
}

// stallError is the cause with which a [watchdog] ends a call.
type stallError struct {
	phase phase
	limit time.Duration
}

func (e *stallError) Error() string {
	text := fmt.Sprintf("no progress for %v", e.limit)
	if e.phase == waiting {
		text += ": the request was received, but not answered"
	}
	return text
}

func (e *stallError) Is(target error) bool {
	return e.phase == waiting && target == api.ErrAnswerTimeout
}

// watchdog ends a call that makes no progress. Progress of a request is what the TCP
// peer has acknowledged: a proxy may take a whole part into its buffers at once, and
// the kernel's send buffer takes a good deal of it. Progress of an answer is what
// has been read.
//
// One goroutine polls the connection, several times within the shortest limit.
type watchdog struct {
	limits limits
	cancel context.CancelCauseFunc
	report func() // after a poll that found progress; may be nil
	done   chan struct{}
	ended  sync.WaitGroup

	mu    sync.Mutex
	conn  *conn // nil while connecting, or where acknowledgements are not known
	base  int64 // bytes that conn had sent before this request
	acked int64 // bytes of this request that the peer has acknowledged
	sent  bool  // the whole request is in the send buffer or beyond
	phase phase
	since time.Time // of the last progress, or of the phase
}

// mostPoll is the longest time between two polls. It bounds how old the progress
// is that a user sees.
const mostPoll = 500 * time.Millisecond

// watch derives the context of one call. report is called by the watchdog after each
// poll that finds progress. The caller must call stop.
func watch(ctx context.Context, l limits, report func()) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{limits: l, cancel: cancel, report: report, phase: connecting, done: make(chan struct{})}
	w.ended.Go(w.run)
	return ctx, w
}

func (w *watchdog) run() {
	tick := time.NewTicker(max(time.Millisecond, min(mostPoll, w.limits.stall/8, w.limits.answer/8)))
	defer tick.Stop()
	for {
		select {
		case <-w.done:
			return
		case now := <-tick.C:
			progress, err := w.poll(now)
			if progress && w.report != nil {
				w.report()
			}
			if err != nil {
				w.cancel(err)
				return
			}
		}
	}
}

// poll looks at the connection. It returns whether the peer has acknowledged more,
// and the reason to end the call, if there is one.
func (w *watchdog) poll(now time.Time) (progress bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phase == sending && w.conn != nil {
		acked, pending := w.conn.acknowledged()
		if progress = acked-w.base > w.acked; progress {
			w.acked, w.since = acked-w.base, now
		}
		if w.sent && pending == 0 {
			w.phase, w.since = waiting, now
		}
	}
	limit := w.limits.of(w.phase)
	unseen := w.phase == sending && w.conn == nil
	if limit == 0 || unseen || now.Sub(w.since) <= limit {
		return progress, nil
	}
	return progress, &stallError{w.phase, limit}
}

// connected notes that the request goes over nc. It is called again if the transport
// tries another connection.
func (w *watchdog) connected(nc net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn, w.base, w.acked, w.sent = connOf(nc), 0, 0, false
	if w.conn != nil {
		w.base = w.conn.sent.Load()
	}
	w.phase, w.since = sending, time.Now()
}

// wrote notes that the whole request has been written.
func (w *watchdog) wrote() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = true
	if w.conn == nil && w.phase == sending {
		w.phase, w.since = waiting, time.Now()
	}
}

// answered notes that bytes of the answer have arrived.
func (w *watchdog) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase, w.since = answering, time.Now()
}

// interim notes an interim answer (1xx). The request goes on.
func (w *watchdog) interim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase, w.since = sending, time.Now()
	if w.conn == nil && w.sent {
		w.phase = waiting
	}
}

// acknowledged returns how many bytes of the request the peer has acknowledged.
func (w *watchdog) acknowledged() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

// stop ends the watch, waits for a report that is under way, and releases the
// context.
func (w *watchdog) stop() {
	close(w.done)
	w.ended.Wait()
	w.cancel(nil)
}
