package fusefs_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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
	arrived, open = block(s.API, largePart)
	s.t.Cleanup(open)
	return arrived, open
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
	s := newStack(t, stackOptions{Part: 8 * mib, Stall: patience})
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

// failComplete answers Complete of Uploads of this size with 500. attempted receives
// once for each of them.
func (s *stack) failComplete(size int64) (attempted <-chan struct{}) {
	reached := make(chan struct{}, 1000)
	var seen sync.Map
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage != local.StageHead || p.Op != local.OpComplete {
			return nil
		}
		for _, u := range s.API.Uploads() {
			if u.ID == p.ID && u.Bytes == size {
				if _, again := seen.LoadOrStore(p.ID, true); !again {
					reached <- struct{}{}
				}
				return &local.Fault{Status: 500, Message: "The server had an error."}
			}
		}
		return nil
	})
	s.t.Cleanup(func() { s.API.SetIntercept(nil) })
	return reached
}

// TestAFileThatIsRetriedHoldsNothing: more files than there are jobs of either kind fail
// for ever, and others are uploaded at once.
func TestAFileThatIsRetriedHoldsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		bad  int
		size int64
	}{"small": {65, 1000}, "large": {17, 1<<20 + 1}} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, stackOptions{Part: 8 * mib, Background: true})
			attempted := s.failComplete(c.size)
			s.run(`for i in $(seq $1); do head -c $2 /dev/zero > bad$i; done`, fmt.Sprint(c.bad), fmt.Sprint(c.size))
			await(t, attempted, c.bad)
			s.run(`printf 12345 > small; head -c $((2 << 20)) /dev/zero > large`)
			for _, f := range []string{"small", "large"} {
				s.eventually(f, "completed")
				s.sameAsFile(f)
			}
			require.NotEqual(t, "completed", s.attr("bad1", "state"))
			s.API.SetIntercept(nil)
			s.drained()
			s.sameAsFile("bad2")
		})
	}
}

// TestFilesOfOneNameWaitForEachOther: Complete fails for a file, and many others have its
// name and size. Files with other names are uploaded meanwhile, and once the first one has
// been tried for long enough, the others are too.
func TestFilesOfOneNameWaitForEachOther(t *testing.T) {
	s := newStack(t, stackOptions{Part: 8 * mib, Background: true})
	var first atomic.Pointer[string] // the Upload that never gets complete
	attempted := make(chan struct{}, 10000)
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage == local.StageHead && p.Op == local.OpComplete {
			first.CompareAndSwap(nil, &p.ID)
			if *first.Load() == p.ID {
				attempted <- struct{}{}
				return &local.Fault{Status: 500, Message: "The server had an error."}
			}
		}
		return nil
	})
	s.run(`for i in $(seq 70); do mkdir $i; printf 12345 > $i/same; done`)
	await(t, attempted, 2)
	s.run(`printf 12345 > other`)
	s.eventually("other", "completed")
	require.Eventually(t, func() bool { return s.ended("completed") == 70 }, patience, 20*time.Millisecond)
	s.API.SetIntercept(nil)
	s.drained()
	require.Equal(t, 71, s.ended("completed"))
}

// TestASlowLineIsShared: together the files take longer than an Upload lives, but each alone
// does not. All are completed, and each byte is sent once.
func TestASlowLineIsShared(t *testing.T) {
	const files, size, rate = 8, 4 * mib, 4 * mib
	s := newStack(t, stackOptions{Part: 8 * mib, Background: true, Stall: patience, API: local.Options{
		UploadTTL: 6 * time.Second, Faults: local.Faults{RateTotal: rate},
	}})
	s.run(`for i in 1 2 3 4 5 6 7 8; do head -c "$1" /dev/urandom > f$i; done`, fmt.Sprint(size))
	s.drained()
	for i := range files {
		s.sameAsFile(fmt.Sprint("f", i+1))
	}
	require.Len(t, s.API.Uploads(), files, "no Upload expired")
	require.EqualValues(t, files, s.API.Stats().PartsStored, "nothing was sent twice")
}

// TestAFileThatNeverFitsIsTriedOnce: at the rate seen the file cannot be sent while an Upload
// lives. It is declared once, alone, and fails; the others are completed.
func TestAFileThatNeverFitsIsTriedOnce(t *testing.T) {
	s := newStack(t, stackOptions{Part: 8 * mib, Background: true, Stall: patience, API: local.Options{
		UploadTTL: 4 * time.Second, Faults: local.Faults{RateTotal: 2 * mib},
	}})
	s.run(`head -c $((2 << 20)) /dev/urandom > first`)
	s.eventually("first", "completed")
	s.run(`head -c $((16 << 20)) /dev/zero > never; head -c $((2 << 20)) /dev/urandom > last`)
	s.drained()
	s.sameAsFile("first")
	s.sameAsFile("last")
	require.Equal(t, "failed", s.attr("never", "state"))
	require.Regexp(t, `an Upload of 16 MiB expired before it was sent at [0-9.]+ [KM]iB/s; that needs a line of 4.0 MiB/s`, s.attr("never", "error"))
	require.Len(t, s.API.Uploads(), 3, "it was declared once")
}

// TestARetryAfterHoldsForAllCalls: the API answers 429 to one file, and no call of another one
// comes before the time that it asks for is over.
func TestARetryAfterHoldsForAllCalls(t *testing.T) {
	const ask = 2 * time.Second
	s := newStack(t, stackOptions{Part: 8 * mib, Background: true})
	var limited atomic.Int64 // when, in ns
	var early atomic.Int64   // calls before the time was over
	answered := make(chan struct{}, 1)
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage != local.StageHead {
			return nil
		}
		now := time.Now()
		if limited.CompareAndSwap(0, now.UnixNano()) {
			answered <- struct{}{}
			return &local.Fault{Status: 429, Code: "rate_limit_exceeded", RetryAfter: ask, Message: "Rate limit reached."}
		}
		if now.Sub(time.Unix(0, limited.Load())) < ask {
			early.Add(1)
		}
		return nil
	})
	s.run(`printf 1 > first`)
	await(t, answered, 1)
	s.eventually("first", "retrying")
	s.run(`for i in 1 2 3 4 5; do printf $i > f$i; done`)
	s.drained()
	require.Zero(t, early.Load())
	for _, f := range []string{"first", "f1", "f5"} {
		s.sameAsFile(f)
	}
}
