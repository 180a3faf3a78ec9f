package put

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"uploadfs/uploader/api"
)

// Acks is a Backend that knows how long the API has acknowledged nothing. It belongs
// beneath the decorator that retries, so that it sees each attempt. It may be used as
// concurrently as the Backend that it decorates.
type Acks struct {
	api.Backend

	mu      sync.Mutex
	waiting int       // jobs that wait for answers
	last    time.Time // when one of these began or ended, or the API answered something with success
}

// NewAcks returns an Acks around b.
func NewAcks(b api.Backend) *Acks { return &Acks{Backend: b, last: time.Now()} }

// expect says that a job waits for answers from now on, until done. To read a file may
// take longer than the API may be silent.
func (a *Acks) expect() (done func()) {
	a.note(1)
	return func() { a.note(-1) }
}

// note counts jobs that begin or end, and an acknowledgement.
func (a *Acks) note(jobs int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting += jobs
	a.last = time.Now()
}

// silent reports whether a job waits and has for so long.
func (a *Acks) silent(now time.Time, timeout time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting > 0 && now.Sub(a.last) >= timeout
}

// Unwrap returns the decorated Backend, see [api.FileReaderOf].
func (a *Acks) Unwrap() api.Backend { return a.Backend }

// Create implements [api.Backend].
func (a *Acks) Create(ctx context.Context, spec api.Spec) (api.Upload, error) {
	up, err := a.Backend.Create(ctx, spec)
	if err == nil {
		a.note(0)
	}
	return up, err
}

// AddPart implements [api.Backend].
func (a *Acks) AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (string, error) {
	id, err := a.Backend.AddPart(ctx, uploadID, body)
	if err == nil {
		a.note(0)
	}
	return id, err
}

// Watch calls giveUp once when a job waits and the API has acknowledged nothing for the
// time given. stop ends the watch and waits for its end.
func (a *Acks) Watch(timeout time.Duration, giveUp func(error)) (stop func()) {
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(max(timeout/20, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				if a.silent(now, timeout) {
					giveUp(fmt.Errorf("nothing was acknowledged for %s (see --timeout)", timeout))
					return
				}
			}
		}
	})
	return func() {
		close(done)
		watching.Wait()
	}
}
