package uploader

import (
	"sync"
	"sync/atomic"
	"time"
)

// Progress is how far the sending of a file, or of all of them, has come at one moment.
// It counts what the TCP peer has acknowledged, and not what waits in our own buffers.
// Behind a proxy, the proxy is the peer.
type Progress struct {
	// Acknowledged counts the bytes of unfinished parts too. What an attempt had sent
	// that failed does not count any more.
	Acknowledged int64 `json:"bytes_acknowledged"`
	Rate         int64 `json:"rate"`          // bytes per second, over the last seconds
	ETA          int64 `json:"eta,omitempty"` // seconds left at this rate; 0 is not known
}

// progressOf is the progress of n bytes, of which some are acknowledged.
func progressOf(n, acked, rate int64) Progress {
	p := Progress{Acknowledged: min(acked, n), Rate: rate}
	if left := n - p.Acknowledged; rate > 0 && left > 0 {
		p.ETA = (left + rate - 1) / rate
	}
	return p
}

// live is what changes of a file between two of its statuses: reading it waits for
// nothing.
type live struct {
	calls *atomic.Int32   // attempts of calls for the file that are under way
	flow  *flow           // what the peer acknowledges of it
	parts []*atomic.Int64 // acknowledged bytes of each part that is being sent
}

// acknowledged is how many bytes of unfinished parts the peer has acknowledged.
func (l *live) acknowledged() (n int64) {
	for _, p := range l.parts {
		n += p.Load()
	}
	return n
}

const (
	// flowWindow is over how long a rate is taken.
	flowWindow = 10 * time.Second
	// flowGrain is how far apart two of its samples are at least.
	flowGrain = flowWindow / 50
	// flowLeast is how long must have been measured before there is a rate.
	flowLeast = 500 * time.Millisecond
)

// flow measures at which rate bytes are acknowledged, over the last seconds in which
// something was being sent. It may be used concurrently.
type flow struct {
	mu      sync.Mutex // guards what follows; a leaf
	users   int        // parts that are being sent
	sum     int64
	samples []flowSample // in order; one at most is older than the window
}

// flowSample says that sum bytes had been acknowledged at that time.
type flowSample struct {
	at  time.Time
	sum int64
}

// begin says that a part is being sent from now on. After a time without one, the rate
// is measured anew.
func (f *flow) begin(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users++; f.users == 1 {
		f.samples = append(f.samples[:0], flowSample{now, f.sum})
	}
}

// end says that a part is not being sent any more.
func (f *flow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users--
}

// add counts n bytes that were acknowledged just now.
func (f *flow) add(now time.Time, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sum += n
	f.prune(now)
	if last := len(f.samples) - 1; last > 0 && now.Sub(f.samples[last].at) < flowGrain {
		f.samples[last].sum = f.sum
		return
	}
	f.samples = append(f.samples, flowSample{now, f.sum})
}

// prune forgets samples that no rate will be taken from. mu is held.
func (f *flow) prune(now time.Time) {
	for len(f.samples) > 1 && now.Sub(f.samples[1].at) >= flowWindow {
		f.samples = f.samples[1:]
	}
}

// rate is in bytes per second, 0 while nothing is being sent or not yet known.
func (f *flow) rate(now time.Time) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users == 0 || len(f.samples) == 0 {
		return 0
	}
	f.prune(now)
	from := f.samples[0]
	took := min(now.Sub(from.at), flowWindow)
	if took < flowLeast {
		return 0
	}
	return int64(float64(f.sum-from.sum) / took.Seconds())
}
