package uploader

import (
	"math"
	"time"

	"uploadfs/uploader/api"
)

const (
	paceWindow = 10 * time.Second // over which the rate is counted that a 429 halves
	paceSteps  = 20               // of the window
	leastPace  = 2.0              // calls per second, however often the API says 429
	freePace   = 10000.0          // from this rate on there is no bound
	paceGain   = 0.1              // calls per second that one success adds
	longestAsk = 5 * time.Minute  // of a Retry-After; as in package retry
)

// pace is one bucket of tokens for all calls of the mount. It is unlimited until the
// API says 429 for the first time. [scheduler.mu] guards it.
type pace struct {
	rate   float64 // calls per second; 0 is no bound
	tokens float64
	filled time.Time
	hold   time.Time // no call before it
	cut    time.Time // when the rate was lowered

	step   int64          // the number of the last step that has a count
	recent [paceSteps]int // calls, by step of the window
}

// take lets one call go now, or says when to ask again.
func (p *pace) take(now time.Time) (again time.Time) {
	if now.Before(p.hold) {
		return p.hold
	}
	if p.rate > 0 {
		p.tokens = min(p.tokens+max(now.Sub(p.filled).Seconds(), 0)*p.rate, max(p.rate/10, 1))
		p.filled = now
		if p.tokens < 1 {
			// A little more than it takes, so that rounding leaves no second wait.
			return now.Add(time.Duration(math.Ceil((1-p.tokens)/p.rate*1e9)) + time.Microsecond)
		}
		p.tokens--
	}
	p.turn(now)
	p.recent[p.step%paceSteps]++
	return time.Time{}
}

// turn forgets the calls that have left the window.
func (p *pace) turn(now time.Time) {
	step := now.UnixNano() / int64(paceWindow/paceSteps)
	for p.step = max(p.step, step-paceSteps); p.step < step; {
		p.step++
		p.recent[p.step%paceSteps] = 0
	}
}

// ended takes in how a call ended that had been let go at started.
func (p *pace) ended(now, started time.Time, err error) {
	if err == nil && p.rate > 0 {
		if p.rate += paceGain; p.rate >= freePace {
			p.rate = 0
		}
	}
	if ask, limited := api.RateLimited(err); limited {
		if until := now.Add(min(ask, longestAsk)); until.After(p.hold) {
			p.hold = until
		}
		if started.After(p.cut) {
			p.halve(now)
		}
	}
}

// halve makes the rate half of what it was in the last 10 s. Calls that were on their way
// by then do not halve it again.
func (p *pace) halve(now time.Time) {
	p.turn(now)
	calls := 0
	for _, n := range p.recent {
		calls += n
	}
	rate := float64(calls) / paceWindow.Seconds()
	if p.rate > 0 {
		rate = min(rate, p.rate)
	}
	p.rate, p.cut = max(rate/2, leastPace), now
	p.tokens, p.filled = 0, now
}
