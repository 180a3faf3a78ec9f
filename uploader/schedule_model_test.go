package uploader

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"uploadfs/uploader/api"
)

// modelFile is a file of the model: what it is, and what becomes of it.
type modelFile struct {
	arrives  time.Duration
	size     int64 // bytes; one part
	small    bool
	outages  int // attempts of each call that fail first
	poisoned bool

	declared int
	sent     int // parts that were answered
	expired  int
	ended    time.Duration // since the start; 0: it never ended
	failed   bool
}

// scenario is what the model draws. Its line is shared: parts under way get equal shares.
type scenario struct {
	parallel int
	rate     int64         // bytes per second
	life     time.Duration // of an Upload
	files    []*modelFile
}

func drawScenario(t *rapid.T) *scenario {
	c := &scenario{
		parallel: rapid.IntRange(1, 4).Draw(t, "parallel"),
		rate:     int64(rapid.IntRange(1, 64).Draw(t, "MiB/s")) << 20,
		life:     time.Duration(rapid.IntRange(10, 120).Draw(t, "life")) * time.Second,
	}
	for range rapid.IntRange(1, 25).Draw(t, "files") {
		f := &modelFile{
			arrives: time.Duration(rapid.IntRange(0, 60000).Draw(t, "arrives")) * time.Millisecond,
			small:   rapid.Bool().Draw(t, "small"),
			size:    1000,
			outages: rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(t, "outages"),
		}
		if !f.small {
			f.size = int64(rapid.IntRange(2, 1024).Draw(t, "MiB")) << 20
		}
		f.poisoned = rapid.IntRange(0, 9).Draw(t, "poisoned") == 0
		c.files = append(c.files, f)
	}
	return c
}

// alone is how long the file takes on the line with nothing beside it.
func (c *scenario) alone(f *modelFile) time.Duration {
	return time.Duration(float64(f.size) / float64(c.rate) * float64(time.Second))
}

// model runs a scenario through the real scheduler, by the clock of synctest.
type model struct {
	*scenario
	q     *scheduler
	start time.Time

	mu     sync.Mutex
	moving []*stream
	peaks  [2]int
	under  [2]int
}

// stream is a part on the line.
type stream struct {
	left float64
	done chan struct{}
}

// carry is the line: every 10 ms each part gets its share.
func (m *model) carry(ctx context.Context) {
	const step = 10 * time.Millisecond
	for tick := time.NewTicker(step); ctx.Err() == nil; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
		m.mu.Lock()
		share := float64(m.rate) * step.Seconds() / float64(max(len(m.moving), 1))
		m.moving = slices.DeleteFunc(m.moving, func(s *stream) bool {
			if s.left -= share; s.left <= 0 {
				close(s.done)
				return true
			}
			return false
		})
		m.mu.Unlock()
	}
}

// attempt is one attempt of a call that has its slot.
func (m *model) attempt(ctx context.Context, t *ticket, bytes int64) error {
	m.mu.Lock()
	m.under[t.kind]++
	m.peaks[t.kind] = max(m.peaks[t.kind], m.under[t.kind])
	s := &stream{float64(bytes), make(chan struct{})}
	if t.op == opPart && t.kind == large {
		m.moving = append(m.moving, s)
	} else {
		time.AfterFunc(40*time.Millisecond, func() { close(s.done) })
	}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.under[t.kind]--
		m.moving = slices.DeleteFunc(m.moving, func(other *stream) bool { return other == s })
		m.mu.Unlock()
	}()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// call is what package retry does with a ticket.
func (m *model) call(ctx context.Context, t *ticket, bytes int64, outages int) error {
	defer t.free()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 20*time.Second) {
		if err := t.Begin(ctx); err != nil {
			return err
		}
		var err error
		if outages != 0 {
			outages--
			err = &api.Error{Kind: api.Transient, Status: 500}
		} else {
			err = m.attempt(ctx, t, bytes)
		}
		t.End(err)
		if err == nil || ctx.Err() != nil {
			return err
		}
		t.Pause()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// upload is what a commit does with a job.
func (m *model) upload(ctx context.Context, f *modelFile) {
	time.Sleep(f.arrives)
	j, k := m.q.job(), large
	if f.small {
		k = small
	}
	defer j.leave()
	for {
		j.enter(ctx, k, f.size, time.Time{})
		if m.call(ctx, m.q.ticket(opCreate, small, j), 0, f.outages) != nil {
			return
		}
		f.declared++
		expires := time.Now().Add(m.life)
		j.declared(expires)
		part := m.q.ticket(opPart, k, j)
		if k == large {
			part.expires, part.bytes = expires, f.size
		}
		life, cancel := context.WithDeadline(ctx, expires)
		err := m.call(life, part, f.size, f.outages)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		f.expired++
		if _, rate := j.hopeless(); rate > 0 || f.expired == 2 {
			f.failed, f.ended = true, time.Since(m.start)
			return
		}
	}
	f.sent++
	j.measure(0)
	outages := f.outages
	if f.poisoned {
		outages = -1 // for ever
	}
	if m.call(ctx, m.q.ticket(opComplete, small, j), 0, outages) == nil {
		f.ended = time.Since(m.start)
	}
}

// run plays the scenario for so long.
func (c *scenario) run(t *testing.T, d time.Duration) (m *model) {
	synctest.Test(t, func(t *testing.T) {
		m = &model{scenario: c, q: newScheduler(c.parallel), start: time.Now()}
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		line, stop := context.WithCancel(context.Background())
		var carrying, files sync.WaitGroup
		carrying.Go(func() { m.carry(line) })
		for _, f := range c.files {
			files.Go(func() { m.upload(ctx, f) })
		}
		files.Wait()
		stop()
		carrying.Wait()
	})
	return m
}

// TestNoFileWaitsForEver: whatever comes, each file that the API does not keep refusing ends
// within a bound that is stated before: all of them one after the other, each with the most
// that it can take.
func TestNoFileWaitsForEver(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := drawScenario(rt)
		bound := time.Minute + 2*time.Minute // the last arrival, and pauses
		for _, f := range c.files {
			if f.small {
				bound += 5 * time.Second
				continue
			}
			bound += 2*min(2*c.life, 4*c.alone(f)) + 10*time.Second
		}
		m := c.run(t, bound)
		if m.peaks[large] > c.parallel || m.peaks[small] > api.SmallCalls {
			rt.Fatalf("%v calls at once", m.peaks)
		}
		if n := m.q.lanes[large].taken + m.q.lanes[small].taken; n > 0 {
			rt.Fatalf("%d slots are left taken", n)
		}
		if n := m.q.queue.working[large] + m.q.queue.working[small] + m.q.queue.paused; n > 0 {
			rt.Fatalf("%d jobs are left", n)
		}
		for i, f := range c.files {
			name := fmt.Sprintf("file %d of %d bytes, alone %s: %+v", i, f.size, c.alone(f), *f)
			switch {
			case f.poisoned && !f.failed && f.ended > 0:
				rt.Fatalf("%s: poisoned, and completed", name)
			case !f.poisoned && f.ended == 0:
				rt.Fatalf("%s: not ended within %s", name, bound)
			case f.small && f.ended > f.arrives+time.Minute:
				rt.Fatalf("%s: a small file waited for large ones", name)
			case f.failed && c.alone(f) < c.life/4:
				rt.Fatalf("%s: failed, and could have been sent easily", name)
			}
		}
	})
}

// TestNothingIsSentTwice: on a line that is known, whatever fits is sent once.
func TestNothingIsSentTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := drawScenario(rt)
		for _, f := range c.files {
			f.outages, f.poisoned = 0, false
			f.size = min(f.size, int64(c.life.Seconds()/2*float64(c.rate)))
		}
		c.run(t, 24*time.Hour)
		for i, f := range c.files {
			if f.declared != 1 || f.sent != 1 || f.failed {
				rt.Fatalf("file %d of %d bytes, alone %s: %+v", i, f.size, c.alone(f), *f)
			}
		}
	})
}
