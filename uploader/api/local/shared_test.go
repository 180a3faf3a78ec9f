package local

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheLineIsShared(t *testing.T) {
	var l sharedLine
	now := time.Unix(1000, 0)
	require.Equal(t, now.Add(time.Second), l.due(now, 100, 100))
	require.Equal(t, now.Add(2*time.Second), l.due(now, 100, 100), "behind the other connection's bytes")
	later := now.Add(time.Minute)
	require.Equal(t, later.Add(time.Second), l.due(later, 100, 100), "what was not used is gone")
}

func TestRequestsPerMinute(t *testing.T) {
	var l requestLimit
	now := time.Unix(1000, 0)
	for range 10 {
		require.Zero(t, l.take(now, 600))
	}
	require.Equal(t, 100*time.Millisecond, l.take(now, 600))
	now = now.Add(100 * time.Millisecond)
	require.Zero(t, l.take(now, 600))
	require.Positive(t, l.take(now, 600))
	now = now.Add(time.Hour)
	for range 10 {
		require.Zero(t, l.take(now, 600))
	}
	require.Positive(t, l.take(now, 600), "no more than those of a second are saved")

	l = requestLimit{}
	require.Zero(t, l.take(now, 1))
	require.Equal(t, time.Minute, l.take(now, 1))
}
