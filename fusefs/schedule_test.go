package fusefs_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// largePart reports whether the request is a part of more than 1 MiB.
func largePart(p local.Point) bool { return p.Op == local.OpPart && p.Request.ContentLength > 2*mib }

// holdLarge holds every large part before its body is read, until open is called.
// arrived receives once for each.
func (s *stack) holdLarge() (arrived <-chan struct{}, open func()) {
	gate, reached := make(chan struct{}), make(chan struct{}, 1000)
	open = sync.OnceFunc(func() { close(gate) })
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage == local.StageHead && largePart(p) {
			reached <- struct{}{}
			select {
			case <-gate:
			case <-p.Request.Context().Done():
			}
		}
		return nil
	})
	s.t.Cleanup(open)
	return reached, open
}

// drained waits until nothing is on its way.
func (s *stack) drained() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.Empty(s.t, s.Up.Drain(ctx))
}

// await receives n times.
func await(t testing.TB, arrived <-chan struct{}, n int) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for range n {
		select {
		case <-arrived:
		case <-deadline.C:
			t.Fatal("a call never arrived")
		}
	}
}

// TestASmallFileDoesNotWaitForLargeParts: while large parts hold all slots, the close of
// 5 bytes returns.
func TestASmallFileDoesNotWaitForLargeParts(t *testing.T) {
	s := newStack(t, stackOptions{Stall: patience})
	arrived, open := s.holdLarge()
	s.run(`{ head -c $((40 << 20)) /dev/zero > large 2> /dev/null & }`)
	await(t, arrived, 4)
	s.run(`printf 12345 > small`)
	s.completed("small", []byte("12345"))
	require.Equal(t, "uploading", s.attr("large", "state"))
	open()
	s.drained()
	s.sameAsFile("large")
}
