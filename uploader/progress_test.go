package uploader

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The rate is that of the last seconds in which something was being sent.
func TestFlow(t *testing.T) {
	var f flow
	now := time.Unix(1000, 0)
	after := func(d time.Duration) time.Time { now = now.Add(d); return now }
	require.Zero(t, f.rate(now), "nothing is being sent")
	f.begin(now)
	f.add(after(flowLeast/2), 1000)
	require.Zero(t, f.rate(now), "too early to tell")
	for range 100 {
		f.add(after(100*time.Millisecond), 100)
	}
	require.InDelta(t, 1000, f.rate(now), 60)
	require.LessOrEqual(t, len(f.samples), int(flowWindow/flowGrain)+2)
	require.InDelta(t, 500, f.rate(after(flowWindow/2)), 60, "it falls when nothing is acknowledged")
	require.Zero(t, f.rate(after(flowWindow)))
	f.end()
	f.begin(after(time.Hour))
	f.add(after(time.Second), 5000)
	require.EqualValues(t, 5000, f.rate(now), "an hour without anything to send does not count")
	f.end()
	require.Zero(t, f.rate(now))
}

func TestTimeLeft(t *testing.T) {
	require.Equal(t, Progress{Acknowledged: 40, Rate: 7, ETA: 9}, progressOf(100, 40, 7))
	require.Equal(t, Progress{Acknowledged: 100, Rate: 7}, progressOf(100, 120, 7), "a report may be a little too high")
	require.Equal(t, Progress{Acknowledged: 40}, progressOf(100, 40, 0), "nobody knows")
}
