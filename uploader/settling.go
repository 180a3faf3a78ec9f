package uploader

import (
	"time"

	"uploadfs/uploader/state"
)

// DefaultSettle is how long a file is closed and quiet before it is sent, where no
// close waits.
const DefaultSettle = time.Second

// settling is the pause between a close that no program waits for and its commit.
// Programs that open, write and close a file again and again make one File then, and
// a file that is renamed just after its close is sent under its final name. The
// session's mutex guards it.
type settling struct {
	pause time.Duration // for which the file must be closed and quiet; 0: commits begin at once
	limit time.Duration // after the first close that was not sent, a commit begins in any case

	waiting bool      // the content of the last close has not begun to be committed
	first   time.Time // when the first close was that was not sent; zero if all were
	timer   *time.Timer
}

// closed takes in a close at now, and returns when its commit is to begin.
func (q *settling) closed(now time.Time) time.Time {
	q.waiting = true
	if q.first.IsZero() {
		q.first = now
	}
	if end := q.first.Add(q.limit); end.Before(now.Add(q.pause)) {
		return end
	}
	return now.Add(q.pause)
}

// overdue reports whether no close may wait any longer.
func (q *settling) overdue(now time.Time) bool {
	return !q.first.IsZero() && !now.Before(q.first.Add(q.limit))
}

// begin ends the waiting, and returns when the first close was that is sent now.
func (q *settling) begin() (first time.Time) {
	first = q.first
	q.reset()
	return first
}

// superseded takes in that the close of that time was not sent after all.
func (q *settling) superseded(first time.Time) {
	if !first.IsZero() {
		q.first = first
	}
}

// reset forgets every close: nothing of them is to be sent.
func (q *settling) reset() {
	q.stop()
	q.waiting, q.first = false, time.Time{}
}

func (q *settling) stop() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
}

// settle lets the content of the last close be committed when the file has been closed
// and quiet for a while. mu is held.
func (s *session) settle() {
	now := time.Now()
	at := s.settling.closed(now)
	if !at.After(now) {
		s.startCommit()
		return
	}
	s.settleUntil(at)
}

// settleUntil looks at the file again at that time, unless another close comes first.
// mu is held.
func (s *session) settleUntil(at time.Time) {
	s.settling.stop()
	var t *time.Timer
	t = time.AfterFunc(time.Until(at), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.settling.timer == t {
			s.settling.timer = nil
			s.settled()
		}
	})
	s.settling.timer = t
}

// settled follows the pause. Where the file is open or has changed, its next close
// begins another pause. Once that may go on no longer, the content of the last close is
// committed if it still exists, else that of the next close. mu is held.
func (s *session) settled() {
	t := s.commits.next
	if t == nil || s.unlinked || s.u.ctx.Err() != nil {
		return
	}
	s.observer.poll()
	now := time.Now()
	switch {
	case s.writers == 0 && !s.uncommitted():
		s.startCommit()
	case !s.settling.overdue(now):
		s.settleUntil(s.settling.first.Add(s.settling.limit))
	case s.observer.whole(t) && s.nameClass() != nameExcluded:
		s.startCommit()
	}
}

// settlesNow reports whether the content of the last close waits, and no other has
// begun. mu is held.
func (s *session) settlesNow() bool {
	return s.settling.waiting && s.rec.State == state.Uploading
}

// sendSettling ends the pause. mu is held.
func (s *session) sendSettling() {
	if s.settling.waiting && s.commits.next != nil && !s.unlinked && s.u.ctx.Err() == nil {
		s.startCommit()
	}
}
