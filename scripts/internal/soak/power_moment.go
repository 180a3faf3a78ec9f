//go:build linux

package main

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"uploadfs/uploader/api/local"
)

// step is a step of a file's life at which the power is cut.
type step int

const (
	// Of the program.
	created step = iota
	midWrite
	fullChunk
	beforeClose
	synced // fsync has returned
	mapped // closed, and a mapping is stored into
	renamed
	removed
	// Of the API's calls.
	beforeCreate
	afterCreate
	partHead
	partBody
	afterPart
	beforeComplete
	afterComplete
	// Of the file that no program has open.
	completed
	waiting     // the API is away
	syncBegun   // the API is away, and the daemon is bringing files to the disk
	syncEnded   // the same, and all are there
	cleanEnd    // the daemon has been told to end
	recovering  // the power has been cut before, and the next daemon is at work
	secondLife  // after a clean end the next daemon is at work
	numberSteps // how many there are
)

func (s step) String() string {
	return [...]string{"created", "mid-write", "full chunk", "before close", "fsync", "live mapping", "renamed", "removed",
		"before Create", "after Create", "head of a part", "body of a part", "after a part", "before Complete", "after Complete",
		"completed", "waiting", "background sync begun", "background sync ended", "clean end", "recovering",
		"after a clean end"}[s]
}

// ofProgram reports whether a program comes to this step.
func (s step) ofProgram() bool { return s < beforeCreate }

// ofAPI reports whether a call of the API comes to this step.
func (s step) ofAPI() bool { return s >= beforeCreate && s < completed }

// apiAway reports whether the API is away until the power is cut.
func (s step) apiAway() bool { return s >= waiting }

// moment is when the power is cut: what comes to the step first, or later, says so, and
// waits there if it has to. Its methods may be called concurrently.
type moment struct {
	step     step
	waits    bool          // what has come to the step stays there until the power has been cut
	lost     bool          // a call that has stayed there is not answered
	fraction float64       // of the body of a part that has come
	reached  chan struct{} // closed when the step has been reached
	begun    atomic.Bool   // the power is about to be cut: programs may fail
	dead     chan struct{} // closed when the daemon is gone
	released chan struct{} // closed when the API's calls go on

	mu sync.Mutex // guards the following
	// left is how often a program still passes the step before it counts.
	left int
}

func newMoment(s step, random *rand.Rand) *moment {
	m := &moment{
		step: s, waits: random.IntN(2) == 0, lost: random.IntN(2) == 0, fraction: random.Float64(),
		reached: make(chan struct{}), dead: make(chan struct{}), released: make(chan struct{}),
	}
	if s == midWrite || s == beforeClose {
		m.left = random.IntN(4)
	}
	return m
}

// reach reports whether the step is reached now.
func (m *moment) reach(s step) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.step != s || m.left < 0 {
		return false
	}
	if m.left--; m.left < 0 {
		close(m.reached)
		return true
	}
	return false
}

// errPowerCut is what a program learns that had to wait for the power cut.
var errPowerCut = errors.New("the power has been cut")

// pass marks that a program has come to a step.
func (m *moment) pass(s step) error {
	if m.reach(s) && m.waits {
		<-m.dead
	}
	return m.over()
}

// over is an error once the power has been cut.
func (m *moment) over() error {
	select {
	case <-m.dead:
		return errPowerCut
	default:
		return nil
	}
}

// intercept is the API's hook. A call that comes to the step stays there, or the round
// would be a matter of luck.
func (m *moment) intercept(p local.Point) *local.Fault {
	at, ok := map[local.Op]map[local.Stage]step{
		local.OpCreate:   {local.StageReceived: beforeCreate, local.StageDone: afterCreate},
		local.OpPart:     {local.StageHead: partHead, local.StageBody: partBody, local.StageDone: afterPart},
		local.OpComplete: {local.StageReceived: beforeComplete, local.StageDone: afterComplete},
	}[p.Op][p.Stage]
	if !ok || at == partBody && float64(p.Received) < m.fraction*float64(p.Request.ContentLength) || !m.reach(at) {
		return nil
	}
	select {
	case <-m.released:
	case <-p.Request.Context().Done():
	}
	if m.lost {
		return &local.Fault{Reset: true}
	}
	return nil
}

// release lets the API's calls go on.
func (m *moment) release() { closeOnce(&m.mu, m.released) }

// died lets the programs go on, to their end.
func (m *moment) died() { closeOnce(&m.mu, m.dead) }

func closeOnce(mu *sync.Mutex, c chan struct{}) {
	mu.Lock()
	defer mu.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}
