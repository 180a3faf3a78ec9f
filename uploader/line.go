package uploader

import (
	"math"
	"time"
)

const (
	// lineParts is over how many answered parts the rate of the line is taken.
	lineParts = 16
	// assumedRate is that before the first answer, in bytes per second.
	assumedRate = 1 << 20
)

// line measures how fast large parts go, all connections together. Only answered parts
// count: what the peer has acknowledged may wait in buffers for a long time. Its clock
// runs while a part is under way. [scheduler.mu] guards it.
type line struct {
	at       time.Time
	clock    float64 // seconds, up to at
	underWay int     // parts
	bytes    int64   // of them
	answered []answered
	ended    float64 // when the last part ended
}

// answered is a part that the API has. The times are by the line's clock.
type answered struct {
	began, ended float64
	bytes        int64
}

func (l *line) advance(now time.Time) {
	if l.underWay > 0 {
		l.clock += max(now.Sub(l.at).Seconds(), 0)
	}
	l.at = now
}

// begin counts a part of n bytes, and returns when it began by the line's clock.
func (l *line) begin(now time.Time, n int64) (began float64) {
	l.advance(now)
	l.underWay++
	l.bytes += n
	return l.clock
}

// end takes back what begin has counted. done says that the API has the part.
func (l *line) end(now time.Time, began float64, n int64, done bool) {
	l.advance(now)
	l.underWay--
	l.bytes -= n
	wasted := l.clock - l.ended
	l.ended = l.clock
	if !done {
		// How much of it has gone is not known, so that time does not count.
		for i := range l.answered {
			l.answered[i].began += wasted
			l.answered[i].ended += wasted
		}
		return
	}
	if l.answered = append(l.answered, answered{began, l.clock, n}); len(l.answered) > lineParts {
		l.answered = l.answered[1:]
	}
}

// seen is the rate in bytes per second, 0 before the first answer. It falls when no
// answer comes: no more can have gone than what is under way.
func (l *line) seen(now time.Time) float64 {
	if len(l.answered) == 0 {
		return 0
	}
	l.advance(now)
	start, end, sum := math.Inf(1), 0.0, int64(0)
	for _, a := range l.answered {
		start, end, sum = min(start, a.began), max(end, a.ended), sum+a.bytes
	}
	const shortest = 1e-6
	return min(float64(sum)/max(end-start, shortest), float64(sum+l.bytes)/max(l.clock-start, shortest))
}

// takes is how long n bytes take.
func (l *line) takes(now time.Time, n int64) time.Duration {
	rate := l.seen(now)
	if rate == 0 {
		rate = assumedRate
		if l.bytes > 0 && l.clock > 0 {
			rate = min(rate, float64(l.bytes)/l.clock)
		}
	}
	return time.Duration(min(float64(n)/rate*float64(time.Second), math.MaxInt64/4))
}
