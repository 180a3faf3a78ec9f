package uploader

import (
	"context"
	"slices"
	"sync"
	"time"

	"uploadfs/uploader/api"
)

// kind says which slots a call takes.
type kind int

const (
	small kind = iota // Create, Complete, Cancel, FindFiles, and a part of at most Options.SmallPart
	large             // any other part
)

// scheduler decides which call to the API goes next, and which file is worked on. A
// call takes a slot of its kind, so a small one never waits for a large part. A
// commit takes a job, of the kind of its file. Neither a slot nor a job is held while
// a call waits for its next attempt, or a file for another of equal name and size.
type scheduler struct {
	mu     sync.Mutex // guards everything below, and is a leaf
	lanes  [2]lane    // by kind
	last   kind       // of the last call that got a slot
	paused bool       // no call gets one
	pace   pace
	line   line
	queue  queue
	timer  *time.Timer // dispatches when time alone lets something go
}

// lane has the slots of one kind of call, and the calls that wait for one.
type lane struct {
	slots   int // in all
	taken   int
	waiting []*ticket // in the order of their coming
}

func newScheduler(parallel int) *scheduler {
	q := &scheduler{queue: newQueue(parallel)}
	q.lanes[small].slots, q.lanes[large].slots = api.SmallCalls, parallel
	return q
}

// kindOf is the kind of a part, or of a file, of n bytes.
func (u *Uploader) kindOf(n int64) kind {
	if n <= u.opts.SmallPart {
		return small
	}
	return large
}

// largeParts is how many large parts are under way.
func (q *scheduler) largeParts() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lanes[large].taken
}

// ticket is one call's way through the schedule: the [api.Attempts] of the call. It
// waits for a slot, holds it for one attempt, and waits again.
type ticket struct {
	q      *scheduler
	op     operation
	kind   kind
	job    *job  // of the file; nil for a Cancel
	turn   *turn // is taken before the slot; nil where there is none to wait for
	paused bool

	expires time.Time // the Upload does; among large parts the first to expire goes first
	bytes   int64     // of a large part
	began   float64   // by the line's clock
	started time.Time // of the attempt

	ready chan struct{} // closed when holds is set
	holds bool          // a slot; scheduler.mu guards it while the ticket waits
}

var _ api.Attempts = (*ticket)(nil)

// ticket is for one call.
func (q *scheduler) ticket(op operation, k kind, j *job) *ticket {
	return &ticket{q: q, op: op, kind: k, job: j}
}

// Begin waits for the turn and a slot. A ticket that holds a slot keeps it.
func (t *ticket) Begin(ctx context.Context) error {
	if t.holds {
		return nil
	}
	if t.turn != nil && t.turn.over == nil {
		t.Pause()
		if err := t.turn.take(ctx); err != nil {
			return err
		}
	}
	again := t.paused && t.op == opCreate
	if t.resume(); again {
		t.job.enterAgain(ctx) // much may have been declared meanwhile
	}
	q := t.q
	q.mu.Lock()
	t.ready = make(chan struct{})
	l := &q.lanes[t.kind]
	l.waiting = append(l.waiting, t)
	q.dispatch()
	q.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.holds {
		t.giveBack(false)
	} else {
		l.remove(t)
	}
	return context.Cause(ctx)
}

// End gives the slot back after an attempt.
func (t *ticket) End(err error) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	t.q.queue.ended(t.op, err)
	t.q.pace.ended(time.Now(), t.started, err)
	t.giveBack(err == nil)
}

// Pause gives the job back until the next Begin, and a turn that was long enough.
func (t *ticket) Pause() {
	if t.paused {
		return
	}
	t.paused = true
	t.job.pause()
	if t.turn != nil {
		t.turn.yield()
	}
}

func (t *ticket) resume() {
	if t.paused {
		t.paused = false
		t.job.resume()
	}
}

// free gives everything back but the turn. It follows every Begin.
func (t *ticket) free() {
	t.resume()
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	t.giveBack(false)
}

// giveBack gives the slot back, if there is one; done says that its call has succeeded.
// scheduler.mu is held.
func (t *ticket) giveBack(done bool) {
	if !t.holds {
		return
	}
	t.hold(false)
	t.q.lanes[t.kind].taken--
	if t.kind == large {
		t.q.line.end(time.Now(), t.began, t.bytes, done)
	}
	t.q.dispatch()
}

// hold says whether the ticket holds a slot. scheduler.mu is held.
func (t *ticket) hold(holds bool) {
	t.holds = holds
	switch {
	case t.job == nil:
	case holds:
		t.job.calls.Add(1)
	default:
		t.job.calls.Add(-1)
	}
}

// dispatch lets the calls go that can, and the files. mu is held.
func (q *scheduler) dispatch() {
	now := time.Now()
	again := q.dispatchCalls(now)
	if at := q.queue.dispatch(now, &q.line); again.IsZero() || !at.IsZero() && at.Before(again) {
		again = at
	}
	q.wake(again)
}

// dispatchCalls gives slots to the calls that can go. It returns when the next one can,
// where only the pace holds it up.
func (q *scheduler) dispatchCalls(now time.Time) (again time.Time) {
	for {
		k, ok := q.nextKind()
		if !ok || q.paused {
			return time.Time{}
		}
		if again = q.pace.take(now); !again.IsZero() {
			return again
		}
		q.last = k
		l := &q.lanes[k]
		t := l.first()
		l.remove(t)
		l.taken++
		if k == large {
			t.began = q.line.begin(now, t.bytes)
		}
		t.started = now
		t.hold(true)
		close(t.ready)
	}
}

// nextKind is the kind of the next call: the two take turns, so that neither keeps the
// other from a token of the pace.
func (q *scheduler) nextKind() (k kind, ok bool) {
	for _, k := range []kind{1 - q.last, q.last} {
		if l := &q.lanes[k]; l.taken < l.slots && len(l.waiting) > 0 {
			return k, true
		}
	}
	return 0, false
}

// first is the call whose Upload expires first; small ones go in the order of their
// coming.
func (l *lane) first() *ticket {
	return slices.MinFunc(l.waiting, func(a, b *ticket) int { return a.expires.Compare(b.expires) })
}

// wake dispatches again at that time, or sooner. mu is held.
func (q *scheduler) wake(at time.Time) {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	if !at.IsZero() {
		q.timer = time.AfterFunc(time.Until(at), func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.dispatch()
		})
	}
}

func (l *lane) remove(t *ticket) {
	for i, other := range l.waiting {
		if other == t {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			return
		}
	}
}
