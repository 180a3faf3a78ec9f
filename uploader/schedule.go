package uploader

import (
	"context"
	"sync"

	"uploadfs/uploader/api"
)

// kind says which slots a call takes.
type kind int

const (
	small kind = iota // Create, Complete, Cancel, FindFiles, and a part of at most Options.SmallPart
	large             // any other part
)

// scheduler decides which call to the API goes next. A call takes a slot of its
// kind, so a small one never waits for a large part.
type scheduler struct {
	mu    sync.Mutex // guards everything below, and is a leaf
	lanes [2]lane    // by kind
}

// lane has the slots of one kind of call, and the calls that wait for one.
type lane struct {
	slots   int // in all
	taken   int
	waiting []*ticket // in the order of their coming
}

func newScheduler(parallel int) *scheduler {
	q := &scheduler{}
	q.lanes[small].slots, q.lanes[large].slots = api.SmallCalls, parallel
	return q
}

// kindOf is the kind of a part of n bytes.
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

// ticket is one call's way through the schedule. One goroutine at a time uses it.
type ticket struct {
	q     *scheduler
	kind  kind
	ready chan struct{} // closed when holds is set
	holds bool          // a slot; scheduler.mu guards it while the ticket waits
}

// ticket is for one call.
func (q *scheduler) ticket(k kind) *ticket { return &ticket{q: q, kind: k} }

// take waits for a slot. A ticket that holds one keeps it.
func (t *ticket) take(ctx context.Context) error {
	q := t.q
	q.mu.Lock()
	if t.holds {
		q.mu.Unlock()
		return nil
	}
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
		t.giveBack()
	} else {
		l.remove(t)
	}
	return context.Cause(ctx)
}

// free gives the slot back, if the ticket holds one.
func (t *ticket) free() {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	t.giveBack()
}

// giveBack is free for a caller that holds scheduler.mu.
func (t *ticket) giveBack() {
	if t.holds {
		t.holds = false
		t.q.lanes[t.kind].taken--
		t.q.dispatch()
	}
}

// dispatch lets the calls go that can. mu is held.
func (q *scheduler) dispatch() {
	for k := range q.lanes {
		for l := &q.lanes[k]; l.taken < l.slots && len(l.waiting) > 0; {
			t := l.waiting[0]
			l.remove(t)
			l.taken++
			t.holds = true
			close(t.ready)
		}
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
