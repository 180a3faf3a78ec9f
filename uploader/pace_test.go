package uploader

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
)

// calls lets calls go for d and counts them. want is the most that are wanted in one second.
func (p *pace) calls(now *time.Time, d time.Duration, want int) (n int) {
	for end := now.Add(d); now.Before(end); {
		again := p.take(*now)
		switch {
		case again.IsZero():
			n++
			*now = now.Add(time.Second / time.Duration(want))
		case again.After(*now):
			*now = again
		default:
			panic("it says to ask again at once")
		}
	}
	return n
}

func TestPace(t *testing.T) {
	limit := &api.Error{Status: 429, RetryAfter: 3 * time.Second}
	now := time.Unix(1e9, 0)
	var p pace
	require.InDelta(t, 8000, p.calls(&now, 10*time.Second, 800), 1, "there is no bound at first")
	p.ended(now, now, errors.New("another error"))
	p.ended(now, now, &api.Error{Status: 429, Kind: api.Quota, RetryAfter: time.Hour})
	require.Zero(t, p.take(now), "neither is a bound on the rate")

	before := now.Add(-time.Millisecond)
	p.ended(now, now, limit)
	require.InDelta(t, 400, p.rate, 30)
	require.Equal(t, now.Add(3*time.Second), p.take(now))
	p.ended(now, before, limit)
	require.InDelta(t, 400, p.rate, 30, "a call that was under way does not halve it again")
	now = now.Add(3 * time.Second)
	require.InDelta(t, 4000, p.calls(&now, 10*time.Second, 10000), 400)

	rate := p.rate
	p.ended(now, now, nil)
	require.Greater(t, p.rate, rate)
	for range 20 {
		p.ended(now, now, limit)
		now = now.Add(time.Minute)
	}
	require.Equal(t, leastPace, p.rate)
	require.InDelta(t, 120, p.calls(&now, time.Minute, 1000), 3, "it never stops")
	for range 300000 {
		p.ended(now, now, nil)
	}
	require.InDelta(t, 1000, p.calls(&now, time.Second, 1000), 1, "and is without a bound again in the end")
}
