package uploader

import (
	"context"
	"slices"
	"time"

	"uploadfs/uploader/api"
)

const (
	// commitsPerSlot is how many large files may be worked on for each slot. A file
	// needs several calls one after the other, and while one of them waits for its
	// slot another file's call can have it.
	commitsPerSlot = 4
	// smallCommits is how many small files may be worked on.
	smallCommits = 2 * api.SmallCalls
	// mostPaused is how many files may wait for their next attempt before an outage
	// is thought to hold up all of them. Each has goroutines and a descriptor.
	mostPaused = 64
	// firstProbe is how long after a file another one is begun in such an outage.
	// It doubles up to lastProbe.
	firstProbe = time.Second
	lastProbe  = 30 * time.Second
)

// operation is what a call does.
type operation int

const (
	opOther operation = iota
	opCreate
	opPart
	opComplete
	operations // how many there are
)

// queue is the files that are worked on, and those that wait for it. [scheduler.mu]
// guards it.
type queue struct {
	most    [2]int    // jobs, by kind
	working [2]int    // of them, those without a paused call
	paused  int       // jobs with one
	waiting [2][]*job // in the order of their coming

	failing [operations]bool // the last attempt met an outage
	probe   time.Time        // when a file may be begun all the same
	pause   time.Duration    // between two such files
}

func newQueue(parallel int) queue {
	return queue{most: [2]int{smallCommits, parallel * commitsPerSlot}}
}

// job is the right to work on a file: it bounds the files that are open and hashed.
// It is given back while a call of the file waits for its next attempt; when that
// comes, the file goes on at once.
type job struct {
	q       *scheduler
	kind    kind
	granted bool
	pauses  int           // calls that wait for their next attempt, or for their turn
	ready   chan struct{} // closed when granted is set
}

func (q *scheduler) job() *job { return &job{q: q} }

// admitted reports whether the file of a session may be worked on as one of size bytes.
func (s *session) admitted(size int64) bool {
	s.job.q.mu.Lock()
	defer s.job.q.mu.Unlock()
	return s.job.granted && s.job.kind == s.u.kindOf(size) || s.u.ctx.Err() != nil
}

// admit waits until the file may be worked on, or the Uploader is closed. mu is held,
// but not while it waits.
func (s *session) admit(size int64) {
	s.unlocked(func() { s.job.enter(s.u.ctx, s.u.kindOf(size)) })
}

func (j *job) enter(ctx context.Context, k kind) {
	j.leave()
	q := j.q
	q.mu.Lock()
	j.kind, j.ready = k, make(chan struct{})
	q.queue.waiting[k] = append(q.queue.waiting[k], j)
	q.dispatch()
	q.mu.Unlock()
	select {
	case <-j.ready:
	case <-ctx.Done():
		j.leave()
	}
}

// leave gives the job back, or ends the waiting for it.
func (j *job) leave() {
	q := j.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if j.granted {
		q.queue.count(j, -1)
		j.granted = false
	} else {
		w := &q.queue.waiting[j.kind]
		*w = slices.DeleteFunc(*w, func(other *job) bool { return other == j })
	}
	q.dispatch()
}

// pause says that a call of the file waits for its next attempt, or its turn, until resume.
func (j *job) pause()  { j.addPause(1) }
func (j *job) resume() { j.addPause(-1) }

func (j *job) addPause(n int) {
	if j == nil {
		return
	}
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	if j.granted {
		j.q.queue.count(j, -1)
	}
	if j.pauses += n; j.granted {
		j.q.queue.count(j, 1)
	}
	j.q.dispatch()
}

// count adds n jobs like j.
func (c *queue) count(j *job, n int) {
	if j.pauses > 0 {
		c.paused += n
	} else {
		c.working[j.kind] += n
	}
}

// ended takes in how an attempt ended.
func (c *queue) ended(op operation, err error) {
	switch {
	case op == opOther:
	case err == nil:
		c.failing[op] = false
	case api.KindOf(err) == api.Transient:
		c.failing[op] = true
	}
	if !c.outage() {
		c.pause = firstProbe
	}
}

// outage reports whether most of what is tried fails. What has failed once is tried
// again; to begin more files would add nothing but attempts.
func (c *queue) outage() bool { return c.paused >= mostPaused && slices.Contains(c.failing[:], true) }

// dispatch grants what jobs it can. It returns when another could be granted though
// nothing but time passes, zero if never.
func (c *queue) dispatch(now time.Time) (again time.Time) {
	for k := range c.waiting {
		for c.working[k] < c.most[k] && len(c.waiting[k]) > 0 {
			if c.outage() {
				if now.Before(c.probe) {
					again = c.probe
					break
				}
				c.probe = now.Add(c.pause)
				c.pause = min(2*c.pause, lastProbe)
			}
			j := c.waiting[k][0]
			c.waiting[k] = c.waiting[k][1:]
			j.granted = true
			c.count(j, 1)
			close(j.ready)
		}
	}
	return again
}
