package uploader

import (
	"context"
	"slices"
	"sync/atomic"
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

	admitted map[*job]bool // that have a job, or were declared early
	life     time.Duration // of an Upload, as the API said last; 0 before the first

	failing [operations]bool // the last attempt met an outage
	probe   time.Time        // when a file may be begun all the same
	pause   time.Duration    // between two such files
}

func newQueue(parallel int) queue {
	return queue{most: [2]int{smallCommits, parallel * commitsPerSlot}, admitted: map[*job]bool{}}
}

// job is the right to work on a file: it bounds the files that are open and hashed.
// It is given back while a call of the file waits for its next attempt; when that
// comes, the file goes on at once.
type job struct {
	q       *scheduler
	kind    kind
	granted bool
	queued  bool      // it waits
	early   bool      // its Upload is declared while the file is written; it has no job
	left    int64     // bytes that are to be sent
	expires time.Time // its Upload does; zero until it is declared
	alone   bool      // it cannot be sent in time at the rates seen
	pauses  int       // calls that wait for their next attempt, or for their turn
	ready   func()    // is called, under scheduler.mu, when granted is set

	calls atomic.Int32 // slots that are held: attempts under way
}

func (q *scheduler) job() *job { return &job{q: q} }

// admitted reports whether the file of a session may be worked on as one of size bytes,
// or will be: its feeder waits for that.
func (s *session) admitted(size int64) bool {
	s.job.q.mu.Lock()
	defer s.job.q.mu.Unlock()
	return (s.job.granted || s.job.queued) && s.job.kind == s.u.kindOf(size) || s.u.ctx.Err() != nil
}

// admit waits until the file may be worked on, or the Uploader is closed. mu is held,
// but not while it waits.
func (s *session) admit(size int64) {
	expires := s.expires(size)
	s.unlocked(func() { s.job.enter(s.u.ctx, s.u.kindOf(size), size, expires) })
}

// expires is when the Upload does that the file has for size bytes; zero without one.
func (s *session) expires(size int64) (at time.Time) {
	if x := s.xfer; x != nil && x.err == nil && x.spec.Bytes == size {
		at = x.upload.ExpiresAt
	}
	return at
}

// request asks for the job. ready is called when the file may be worked on, under
// scheduler.mu.
func (j *job) request(k kind, size int64, expires time.Time, ready func()) {
	j.leave()
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	j.kind, j.left, j.expires, j.ready, j.queued = k, size, expires, ready, true
	j.q.queue.waiting[k] = append(j.q.queue.waiting[k], j)
	j.q.dispatch()
}

// withdraw ends the waiting for the job, and reports whether it was not granted yet.
func (j *job) withdraw() bool {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	if !j.queued {
		return false
	}
	j.q.queue.forget(j)
	j.q.dispatch()
	return true
}

func (j *job) enter(ctx context.Context, k kind, size int64, expires time.Time) {
	ready := make(chan struct{})
	j.request(k, size, expires, func() { close(ready) })
	select {
	case <-ready:
	case <-ctx.Done():
		j.leave()
	}
}

// enterAgain lets a large file wait until its Upload can be declared, after a pause in
// which others may have been.
func (j *job) enterAgain(ctx context.Context) {
	j.q.mu.Lock()
	k, left, due := j.kind, j.left, j.granted && j.kind == large
	j.q.mu.Unlock()
	if due {
		j.enter(ctx, k, left, time.Time{})
	}
}

// leave gives the job back, or ends the waiting for it.
func (j *job) leave() {
	q := j.q
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.queue.admitted, j)
	j.early, j.alone = false, false
	if j.granted {
		q.queue.count(j, -1)
		j.granted = false
	} else {
		q.queue.forget(j)
	}
	q.dispatch()
}

// forget takes a job out of those that wait. scheduler.mu is held.
func (c *queue) forget(j *job) {
	w := &c.waiting[j.kind]
	*w = slices.DeleteFunc(*w, func(other *job) bool { return other == j })
	j.queued = false
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
func (c *queue) dispatch(now time.Time, line *line) (again time.Time) {
	for k := range c.waiting {
		for c.working[k] < c.most[k] && len(c.waiting[k]) > 0 {
			if c.outage() && now.Before(c.probe) {
				again = c.probe
				break
			}
			j := c.next(kind(k), now, line)
			if j == nil {
				break
			}
			if c.outage() {
				c.probe = now.Add(c.pause)
				c.pause = min(2*c.pause, lastProbe)
			}
			c.forget(j)
			j.granted = true
			j.alone = j.kind == large && j.expires.IsZero() && line.seen(now) > 0 && line.takes(now, j.left) > c.spendable()
			c.admitted[j] = true
			c.count(j, 1)
			j.ready()
		}
	}
	return again
}

// next is the file that is to be worked on: first those whose Upload is declared
// already, by its expiry, and then in the order of their coming. It is nil while the
// first one would make an Upload expire. No later one overtakes it, so it is admitted
// at the latest when nothing else is being sent.
func (c *queue) next(k kind, now time.Time, line *line) *job {
	if k == small {
		return c.waiting[k][0]
	}
	var first *job
	for _, j := range c.waiting[k] {
		if !j.expires.IsZero() && (first == nil || j.expires.Before(first.expires)) {
			first = j
		}
	}
	if first == nil && c.fits(c.waiting[k][0], now, line) {
		first = c.waiting[k][0]
	}
	return first
}

// fits reports whether a new Upload can be declared: everything that is being sent,
// and this one, is sent before the first of them expires. One that never fits is
// declared alone.
func (c *queue) fits(j *job, now time.Time, line *line) bool {
	load, life, alone := j.left, c.lifetime(), true
	for other := range c.admitted {
		if other == j || other.kind == small || other.left <= 0 || other.pauses > 0 && other.expires.IsZero() {
			continue // it has nothing to send, or nothing that could expire
		}
		if other.alone {
			return false
		}
		alone = false
		load += other.left
		if !other.expires.IsZero() {
			life = min(life, other.expires.Sub(now))
		}
	}
	if alone {
		return true
	}
	return c.life > 0 && line.takes(now, load) <= spend(life)
}

// lifetime is how long an Upload lives.
func (c *queue) lifetime() time.Duration {
	if c.life == 0 {
		return time.Hour
	}
	return c.life
}

// spend is the part of the time until an expiry that is counted on.
func spend(d time.Duration) time.Duration { return d / 4 * 3 }

// spendable is how long an Upload may take to be sent.
func (c *queue) spendable() time.Duration { return spend(c.lifetime()) }

// spendable is how long an Upload may take to be sent.
func (q *scheduler) spendable() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.queue.spendable()
}

// beginEarly admits the Upload of a file that is still being written and will have
// size bytes. It returns false if that could make an Upload expire.
func (j *job) beginEarly(size int64) bool {
	q := j.q
	q.mu.Lock()
	defer q.mu.Unlock()
	c := &q.queue
	if j.granted || j.early {
		return true
	}
	if len(c.waiting[large]) > 0 {
		return false
	}
	j.kind, j.left, j.expires = large, size, time.Time{}
	now := time.Now()
	if !c.fits(j, now, &q.line) || q.line.seen(now) > 0 && q.line.takes(now, size) > c.spendable() {
		return false
	}
	j.early, c.admitted[j] = true, true
	return true
}

// declared takes in that the API has declared the Upload, and when it expires.
func (j *job) declared(expires time.Time) {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	j.expires = expires
	j.q.queue.life = max(time.Until(expires), time.Second)
	j.q.dispatch()
}

// measure takes in how many bytes are to be sent.
func (j *job) measure(left int64) {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	j.left = left
	j.q.dispatch()
}

// hopeless returns the life of an Upload, and the rate at which the file cannot be
// sent in it; 0 where it can.
func (j *job) hopeless() (life time.Duration, rate float64) {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	if j.alone {
		rate = j.q.line.seen(time.Now())
	}
	return j.q.queue.lifetime(), rate
}
