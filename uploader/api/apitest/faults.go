package apitest

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"uploadfs/uploader/api"
)

// Op names a method of a Backend, as Error.Op does.
type Op string

// The methods.
const (
	OpCreate   Op = "create"
	OpPart     Op = "part"
	OpComplete Op = "complete"
	OpCancel   Op = "cancel"
	OpFind     Op = "find"
	OpGet      Op = "get"
)

// Stage is a point of a call at which a [Memory] can fail or wait.
type Stage int

// The stages, in order.
const (
	Before  Stage = iota // nothing has happened yet
	MidBody              // half of a part's body is read; other calls have no such stage
	After                // the call is carried out but not answered: an error here is a lost answer
)

// Call identifies a call and its stage.
type Call struct {
	Op       Op
	Stage    Stage
	UploadID string // "" where there is none
	N        int    // the number of the call among those of its Op, from 1
}

type place struct {
	op    Op
	stage Stage
}

// faults holds the faults that a test has requested.
type faults struct {
	// mu guards the following.
	mu     sync.Mutex
	hook   func(context.Context, Call) error
	queued map[place][]error
	gates  map[place]*Gate
}

// Fail makes the next calls that reach a stage fail, one with each error, in order.
// A nil lets one call continue. An [api.Error] without Op gets the call's Op and
// Upload. See also [ServerError] and the functions after it.
func (m *Memory) Fail(op Op, stage Stage, errs ...error) {
	f := &m.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queued == nil {
		f.queued = make(map[place][]error)
	}
	at := place{op, stage}
	f.queued[at] = append(f.queued[at], errs...)
}

// Hook makes every call run f at every stage, after queued errors and gates. An error
// of f ends the call. f runs on the goroutines of the callers, concurrently, and may
// block until its context ends. nil removes the hook.
func (m *Memory) Hook(f func(context.Context, Call) error) {
	m.faults.mu.Lock()
	defer m.faults.mu.Unlock()
	m.faults.hook = f
}

// Hold stops every call that reaches a stage until the gate is opened or the call's
// context ends.
func (m *Memory) Hold(op Op, stage Stage) *Gate {
	f := &m.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gates == nil {
		f.gates = make(map[place]*Gate)
	}
	g := &Gate{arrived: make(chan struct{}, 1), pass: make(chan struct{}), open: make(chan struct{})}
	f.gates[place{op, stage}] = g
	return g
}

// at runs a stage and returns the error that ends the call there, if any. An ended
// context is an error at every stage.
func (m *Memory) at(ctx context.Context, c Call, stage Stage) error {
	c.Stage = stage
	at := place{c.Op, stage}
	f := &m.faults
	f.mu.Lock()
	gate, hook := f.gates[at], f.hook
	var fault error
	if queue := f.queued[at]; len(queue) > 0 {
		fault, f.queued[at] = queue[0], queue[1:]
	}
	f.mu.Unlock()
	if gate != nil {
		gate.wait(ctx)
	}
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		e := &api.Error{Kind: api.KindOf(cause), Message: cause.Error(), Err: errors.Join(cause, ctx.Err())}
		if stage == Before {
			e.Err = errors.Join(api.ErrNotSent, e.Err)
		}
		return e
	}
	if fault != nil {
		return fault
	}
	if hook != nil {
		return hook(ctx, c)
	}
	return nil
}

// Gate holds calls at a stage. See [Memory.Hold].
type Gate struct {
	arrived chan struct{} // has a token after held has changed
	pass    chan struct{} // a receive lets one call through
	open    chan struct{} // closed: all pass
	once    sync.Once

	mu   sync.Mutex
	held int
}

func (g *Gate) wait(ctx context.Context) {
	g.count(1)
	defer g.count(-1)
	select {
	case <-g.open:
	case g.pass <- struct{}{}:
	case <-ctx.Done():
	}
}

func (g *Gate) count(n int) {
	g.mu.Lock()
	g.held += n
	g.mu.Unlock()
	select {
	case g.arrived <- struct{}{}:
	default:
	}
}

// Held is how many calls are held now.
func (g *Gate) Held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

// Await waits until at least n calls are held. Only one goroutine may await at a time.
func (g *Gate) Await(t testing.TB, n int) {
	t.Helper()
	deadline := time.NewTimer(5 * time.Minute)
	defer deadline.Stop()
	for g.Held() < n {
		select {
		case <-g.arrived:
		case <-deadline.C:
			t.Fatalf("%d calls are held at the gate, awaited %d", g.Held(), n)
		}
	}
}

// Pass lets one call continue. It waits for one if none is held.
func (g *Gate) Pass() { <-g.pass }

// Open lets all calls continue, later ones too.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

// ServerError is a 503.
func ServerError() error {
	return &api.Error{Status: http.StatusServiceUnavailable, Message: "The server is overloaded."}
}

// RateLimit is a 429 that asks to wait.
func RateLimit(after time.Duration) error {
	return &api.Error{Status: http.StatusTooManyRequests, RetryAfter: after, Message: "Rate limit reached."}
}

// Quota is a 429 that will not pass by itself.
func Quota() error {
	return &api.Error{Kind: api.Quota, Status: http.StatusTooManyRequests, Message: "You exceeded your current quota."}
}

// Denied is a 401.
func Denied() error {
	return &api.Error{Kind: api.Denied, Status: http.StatusUnauthorized, Message: "Incorrect API key provided."}
}

// Broken is a connection that broke before there was an answer.
func Broken() error {
	return &api.Error{Message: "no answer: connection reset by peer", Err: syscall.ECONNRESET}
}

// Unreachable is a refused connection: the request was not sent.
func Unreachable() error {
	return &api.Error{Message: "no answer: connection refused", Err: errors.Join(api.ErrNotSent, syscall.ECONNREFUSED)}
}
