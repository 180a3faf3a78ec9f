package uploader

import (
	"context"
	"time"

	"uploadfs/uploader/state"
)

// commits is what the closes of a file have asked for, and which of them wait.
// The session's mutex guards it.
type commits struct {
	running    bool   // a commit is under way or queued; there is one at a time
	queued     bool   // it waits for its job, and has no goroutine
	completing bool   // the commit under way has called Complete
	requested  uint64 // the generation that the last close spoke of
	forced     bool   // the user has asked: where an outcome cannot be known, send again
	waiters    map[*waiter]bool

	target  *target // of the commit under way
	sending bool    // the transfer is for it
	next    *target // what the last close wants to be committed; nil if nothing
	retries int     // targets in a row that were taken for closes whose own content has gone

	lastAck     time.Time // when the API last acknowledged bytes of this file
	nextAttempt time.Time // while retrying
}

// waiter is a close that waits until its generation is committed, or never will be.
type waiter struct {
	gen  uint64
	done chan error // buffered; receives once
}

// newWaiter adds a close that waits for gen.
func (c *commits) newWaiter(gen uint64) *waiter {
	w := &waiter{gen: gen, done: make(chan error, 1)}
	c.waiters[w] = true
	return w
}

// answer tells every close that waits for gen or an earlier generation.
func (c *commits) answer(gen uint64, err error) {
	for w := range c.waiters {
		if w.gen <= gen {
			w.done <- err
			delete(c.waiters, w)
		}
	}
}

// waits reports whether a close waits for gen or an earlier generation.
func (c *commits) waits(gen uint64) bool {
	for w := range c.waiters {
		if w.gen <= gen {
			return true
		}
	}
	return false
}

// setTargets says which contents are committed now and next. mu is held.
func (s *session) setTargets(now, next *target) {
	s.commits.target, s.commits.next = now, next
	s.content.targets = s.content.targets[:0]
	for _, t := range []*target{now, next} {
		if t != nil {
			s.content.targets = append(s.content.targets, t)
		}
	}
}

// requestUpload lets the content be committed as it is now; settle says that the file may
// change or be renamed soon. mu is held.
func (s *session) requestUpload(settle bool) {
	t := s.content.mark()
	t.hashed = !s.u.opts.Checksum
	s.observer.mark(t)
	s.commits.requested = t.gen
	s.setTargets(s.commits.target, t)
	s.move(state.Uploading, nil)
	if settle && s.settling.pause > 0 {
		s.settle()
		return
	}
	s.startCommit()
}

// answer tells every close that waits for gen or an earlier generation, and wakes
// the commit. mu is held.
func (s *session) answer(gen uint64, err error) {
	s.commits.answer(gen, err)
	s.cond.Broadcast()
}

// answerRest tells every close but those whose content is being committed and can
// still be: what has become of a later content is not their answer. mu is held.
func (s *session) answerRest(err error) {
	t := s.commits.target
	if t == nil || t.withdrawn || !s.observer.whole(t) {
		s.answer(s.content.gen, err)
		return
	}
	for w := range s.commits.waiters {
		if w.gen > t.gen {
			w.done <- err
			delete(s.commits.waiters, w)
		}
	}
	s.cond.Broadcast()
}

// wait waits for the answer to w. ctx bounds the waiting and not the upload, as
// does timeout: so long without one acknowledged byte, or for ever if 0.
func (s *session) wait(ctx context.Context, w *waiter, timeout time.Duration) error {
	defer func() {
		s.mu.Lock()
		delete(s.commits.waiters, w)
		s.mu.Unlock()
	}()
	var expired <-chan time.Time
	started := time.Now()
	if timeout > 0 {
		t := time.NewTicker(max(timeout/20, time.Millisecond))
		defer t.Stop()
		expired = t.C
	}
	for {
		select {
		case err := <-w.done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-expired:
			s.mu.Lock()
			since := s.commits.lastAck
			s.mu.Unlock()
			if s.u.Paused() {
				started = now // nothing can be acknowledged
			}
			if since.Before(started) {
				since = started
			}
			if now.Sub(since) >= timeout {
				return context.DeadlineExceeded
			}
		}
	}
}
