package uploader

import (
	"fmt"
	"os"
	"sync"
	"time"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// The page cache survives a killed daemon and not a power cut. So the journal records
// under which boot of the kernel a content was last known to be whole, and which
// contents are on the disk. Nothing is synced on the way of the data.

// DefaultSyncAfter is how long a closed file waits for the API before it is brought to
// the disk in the background.
const DefaultSyncAfter = 5 * time.Second

// pendingSyncs are the files that will be brought to the disk if they still wait then.
type pendingSyncs struct {
	after time.Duration

	mu    sync.Mutex
	queue []pendingSync // first in, first due
	wake  chan struct{} // buffered; the queue is no longer empty
}

type pendingSync struct {
	s   *session
	due time.Time
}

func (p *pendingSyncs) add(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, pendingSync{s, time.Now().Add(p.after)})
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next takes the first session out of the queue if it is due, else it says for how
// long not; ok is false if there is none.
func (p *pendingSyncs) next() (s *session, wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil, 0, false
	}
	if wait = time.Until(p.queue[0].due); wait > 0 {
		return nil, wait, true
	}
	s = p.queue[0].s
	p.queue[0] = pendingSync{}
	p.queue = p.queue[1:]
	return s, 0, true
}

// syncPending brings files that wait to the disk, one after the other, until the
// Uploader is closed.
func (u *Uploader) syncPending() {
	t := time.NewTimer(0)
	defer t.Stop()
	recorded := false
	for {
		s, wait, ok := u.syncs.next()
		switch {
		case s != nil:
			recorded = s.makeDurable() || recorded
			if u.ctx.Err() != nil {
				return
			}
			continue
		case recorded:
			recorded = false
			u.journal.Sync() // what it says of the disk belongs there too
		}
		var due <-chan time.Time
		if ok {
			t.Reset(wait)
			due = t.C
		}
		select {
		case <-due:
		case <-u.syncs.wake:
		case <-u.ctx.Done():
			return
		}
	}
}

// syncLater lets a content that waits be brought to the disk in a while. mu is held.
func (s *session) syncLater() {
	if s.awaitsSync() {
		s.u.syncs.add(s)
	}
}

// awaitsSync reports whether the file is closed and waits to be sent, and is not known
// to be on the disk. mu is held.
func (s *session) awaitsSync() bool {
	switch s.rec.State {
	case state.Uploading, state.Retrying, state.Held, state.Failed:
		return s.put == nil && !s.unlinked && s.rec.Durable != s.rec.Stamp()
	}
	return false
}

// makeDurable brings the file to the disk, if it still waits, and records that.
func (s *session) makeDurable() (recorded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.awaitsSync() || s.u.ctx.Err() != nil || s.openFile() != nil {
		return false
	}
	defer s.closeFile()
	file := s.file.f
	var on backing.Stamp
	var err error
	s.unlocked(func() { on, err = syncFile(file) })
	if err != nil {
		s.u.log.Warn("not brought to the disk", "path", s.rec.Path, "error", err)
		return false
	}
	if !s.awaitsSync() || s.u.ctx.Err() != nil || on != s.rec.Stamp() {
		return false // it changed meanwhile
	}
	s.rec.Durable = on
	s.save()
	s.u.log.Debug("on the disk", "path", s.rec.Path)
	return true
}

// syncFile brings content and times of the file to the disk, and returns the stamp
// that it had all the while; zero if it changed.
func syncFile(file *os.File) (backing.Stamp, error) {
	before, err := backing.StatFd(int(file.Fd()))
	if err != nil {
		return backing.Stamp{}, err
	}
	if err := file.Sync(); err != nil { // fdatasync(2) need not write the times
		return backing.Stamp{}, err
	}
	after, err := backing.StatFd(int(file.Fd()))
	if err != nil || after.Stamp() != before.Stamp() {
		return backing.Stamp{}, err
	}
	return after.Stamp(), nil
}

// syncTree brings the whole tree to the disk and records that of each file whose
// content the next mount will rely on. No session works any more; a writer in
// passthrough may.
func (u *Uploader) syncTree() error {
	type content struct {
		key   backing.Key
		stamp backing.Stamp
	}
	var was []content // in the order of the keys
	err := u.eachToSync(func(r *journal.Record, now backing.Stamp) {
		if r.Durable != now {
			was = append(was, content{r.Key, now})
		}
	}, nil)
	if err != nil || len(was) == 0 {
		return err
	}
	if !backing.FineTimes() {
		time.Sleep(coarseTick) // a write in the same tick would not show
	}
	if err := u.tree.Sync(); err != nil {
		return fmt.Errorf("backing tree: %w", err)
	}
	durable := map[backing.Key]backing.Stamp{}
	return u.eachToSync(func(r *journal.Record, now backing.Stamp) {
		for len(was) > 0 && keyLess(was[0].key, r.Key) {
			was = was[1:]
		}
		if len(was) > 0 && was[0] == (content{r.Key, now}) {
			durable[r.Key] = now
		}
	}, func() error {
		if len(durable) == 0 {
			return nil
		}
		defer clear(durable)
		return u.journal.MarkDurable(durable)
	})
}

// eachToSync calls do for each file that has the content of its record, and after for
// each page of them.
func (u *Uploader) eachToSync(do func(r *journal.Record, now backing.Stamp), after func() error) error {
	for key := journal.First; ; {
		page, err := u.journal.After(key, recoveryPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, r := range page {
			if now, ok := u.recordedContent(r); ok {
				do(r, now)
			}
		}
		key = page[len(page)-1].Key
		if after == nil {
			continue
		}
		if err := after(); err != nil {
			return err
		}
	}
}

// recordedContent is the stamp of a file that has the content of its record; ok is
// false if it has another, or if it cannot be told, or if it does not matter.
func (u *Uploader) recordedContent(r *journal.Record) (now backing.Stamp, ok bool) {
	if r.Boot != u.boot || r.State != state.Completed && !goesByTimes(r.State, false) {
		return now, false
	}
	info, err := u.tree.Stat(r.Path)
	if err != nil || info.Key != r.Key {
		return now, false
	}
	now, want := info.Stamp(), r.Stamp()
	if r.State == state.Completed {
		want.Ctime = now.Ctime // a chmod of it is not recorded
	}
	return now, now == want
}
