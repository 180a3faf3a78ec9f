package uploader

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSettling: a commit begins when the file has been quiet, or when its first close has
// waited for long enough.
func TestSettling(t *testing.T) {
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	q := settling{pause: 3 * time.Second, limit: 10 * time.Second}
	require.False(t, q.overdue(at(100)), "nothing waits")

	for _, step := range []struct{ close, commit int }{{0, 3}, {2, 5}, {5, 8}, {7, 10}, {9, 10}} {
		require.Equal(t, at(step.commit), q.closed(at(step.close)), "closed at %d", step.close)
		require.True(t, q.waiting)
	}
	require.False(t, q.overdue(at(9)))
	require.True(t, q.overdue(at(10)))
	require.Equal(t, at(10), q.closed(at(12)), "a close that is overdue does not wait")

	first := q.begin()
	require.False(t, q.waiting)
	require.Equal(t, at(16), q.closed(at(13)), "the others were sent")
	q.superseded(first)
	require.Equal(t, at(10), q.closed(at(14)), "they were not sent after all")
	q.reset()
	require.Equal(t, at(23), q.closed(at(20)))
}
