package put

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"uploadfs/uploader/api"
)

// Meter is a Backend that counts what it is given to send. It belongs beneath the
// decorator that retries, so that it sees each attempt. It may be used as
// concurrently as the Backend that it decorates.
type Meter struct {
	api.Backend

	mu      sync.Mutex
	bytes   map[string]int64 // by Upload: of its acknowledged parts, and what was read of those in flight
	waiting int              // jobs that wait for answers
	lastAck time.Time        // when one of these began or ended, or the API answered something with success
}

// NewMeter returns a Meter around b.
func NewMeter(b api.Backend) *Meter {
	return &Meter{Backend: b, bytes: map[string]int64{}, lastAck: time.Now()}
}

// sent is how many bytes of an Upload have gone through the Meter.
func (m *Meter) sent(uploadID string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes[uploadID]
}

func (m *Meter) add(uploadID string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes[uploadID] += n
}

func (m *Meter) ack(err error) {
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lastAck = time.Now()
	}
}

// expect says that a job waits for answers from now on, until done. To read a file may
// take longer than the API may be silent.
func (m *Meter) expect() (done func()) {
	note := func(n int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.waiting += n
		m.lastAck = time.Now()
	}
	note(1)
	return func() { note(-1) }
}

// Unwrap returns the decorated Backend, see [api.FileReaderOf].
func (m *Meter) Unwrap() api.Backend { return m.Backend }

// Create implements [api.Backend].
func (m *Meter) Create(ctx context.Context, spec api.Spec) (api.Upload, error) {
	up, err := m.Backend.Create(ctx, spec)
	m.ack(err)
	return up, err
}

// AddPart implements [api.Backend].
func (m *Meter) AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (string, error) {
	c := &countedBody{meter: m, uploadID: uploadID, body: body}
	id, err := m.Backend.AddPart(ctx, uploadID, io.NewSectionReader(c, 0, body.Size()))
	m.ack(err)
	if err != nil {
		m.add(uploadID, -c.at)
	}
	return id, err
}

// countedBody is a part's body that reports how far it has been read.
type countedBody struct {
	meter    *Meter
	uploadID string
	body     *io.SectionReader
	at       int64 // the end of the last read; one goroutine at a time reads
}

func (c *countedBody) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.body.ReadAt(p, off)
	c.meter.add(c.uploadID, off+int64(n)-c.at)
	c.at = off + int64(n)
	return n, err
}

// Watch calls giveUp once when a job waits and the API has acknowledged nothing for the
// time given.
// stop ends the watch and waits for its end.
func (m *Meter) Watch(timeout time.Duration, giveUp func(error)) (stop func()) {
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
				m.mu.Lock()
				idle := m.waiting > 0 && now.Sub(m.lastAck) >= timeout
				m.mu.Unlock()
				if idle {
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
