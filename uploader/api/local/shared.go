package local

import (
	"math"
	"net/http"
	"sync"
	"time"
)

// sharedLine is a line that all connections share. The zero value is free.
type sharedLine struct {
	mu   sync.Mutex
	free time.Time // from then on it carries nothing that is known
}

// due takes the line for n bytes at rate bytes per second, and returns when they are
// over it.
func (l *sharedLine) due(now time.Time, n, rate int64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return l.free
}

// requestLimit bounds the requests in a minute: it has a token for each that is
// allowed now, and at most those of one second.
type requestLimit struct {
	mu     sync.Mutex
	tokens float64
	filled time.Time
}

// take uses up a token. Without one it returns how long the next one takes.
func (l *requestLimit) take(now time.Time, perMinute int) (wait time.Duration) {
	rate := float64(perMinute) / 60 // per second
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.filled.IsZero() {
		l.tokens += now.Sub(l.filled).Seconds() * rate
	}
	if most := max(rate, 1); l.filled.IsZero() || l.tokens > most {
		l.tokens = most
	}
	l.filled = now
	if l.tokens < 1 {
		return time.Duration(math.Ceil((1 - l.tokens) / rate * float64(time.Second)))
	}
	l.tokens--
	return 0
}

// tooManyRequests is what --requests-per-minute answers.
func tooManyRequests(wait time.Duration) *Fault {
	return &Fault{Status: http.StatusTooManyRequests, Code: "rate_limit_exceeded",
		Message: "Rate limit reached for requests per minute.", RetryAfter: wait}
}
