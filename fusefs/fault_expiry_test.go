package fusefs_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// clock is the API's clock, which tests can put forward.
type clock struct{ ahead atomic.Int64 }

func newClock() *clock { return new(clock) }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) pass(d time.Duration) { c.ahead.Add(int64(d)) }

// slowWriter writes n parts of a file of known size, reports it, and goes on when a
// line arrives on its input.
const slowWriter = `
import os, sys
part = int(sys.argv[1])
dst = os.open("f", os.O_WRONLY | os.O_CREAT)
os.setxattr("f", "user.uploadfs.size_hint", str(3 * part).encode())
for i in range(2): os.write(dst, os.urandom(part))
os.fsync(dst)
print("written", flush=True)
sys.stdin.readline()
os.write(dst, os.urandom(part))
os.close(dst)
`

// TestExpiryWhileWriting: the Upload of a slow writer expires in the middle, by
// expires_at, or after an hour where the API gives no time.
func TestExpiryWhileWriting(t *testing.T) {
	for name, ttl := range map[string]time.Duration{"refused": time.Hour, "known": time.Second} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			s := newStack(t, stackOptions{API: local.Options{UploadTTL: ttl, Now: clock.now}})
			w := s.start(slowWriter, "1048576")
			w.expect("written")
			if ttl == time.Hour {
				require.Eventually(t, func() bool { return s.attr("f", "progress") == "2/3" }, patience, time.Millisecond)
				clock.pass(2 * time.Hour)
			}
			require.Eventually(t, func() bool { return len(s.API.Uploads()) > 0 && s.pending() == 0 }, patience, time.Millisecond)
			w.send("go on")
			require.NoError(t, w.wait())
			s.one(t, "f", s.read("f"))
			require.GreaterOrEqual(t, s.API.Stats().UploadsCreated, int64(2))
		})
	}
}

// TestExpiryWhileTheLineIsDown: parts fail until the Upload has expired.
func TestExpiryWhileTheLineIsDown(t *testing.T) {
	for name, c := range map[string]struct {
		ttl  time.Duration
		kind func(local.Point) *local.Fault
	}{
		"unanswered": {time.Second, answer(local.Fault{Reset: true})},
		"late":       {time.Hour, answer(local.Fault{Status: 503, Message: "later"})},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			s := newStack(t, stackOptions{API: local.Options{UploadTTL: c.ttl, Now: clock.now}})
			src, content := source(t, partSize+partSize/8)
			o := &outage{place: place{op: local.OpPart, stage: local.StageReceived}, kind: c.kind, over: make(chan struct{})}
			s.API.SetIntercept(o.intercept)
			copied := s.copy(src, "f")
			s.retrying(t, "f", "")
			if c.ttl == time.Hour {
				clock.pass(2 * time.Hour)
			}
			require.Eventually(t, func() bool { return s.pending() == 0 || len(s.API.Uploads()) > 1 }, patience, time.Millisecond)
			close(o.over)
			require.NoError(t, <-copied)
			s.one(t, "f", content)
		})
	}
}

// TestExpiredTwice: on this line no Upload lasts long enough.
func TestExpiredTwice(t *testing.T) {
	clock := newClock()
	s := newStack(t, stackOptions{API: local.Options{Now: clock.now}})
	src, content := source(t, partSize+partSize/8)
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageReceived {
			clock.pass(2 * time.Hour)
		}
		return nil
	})
	out, err := s.sh(`cp "$1" f`, src)
	require.Error(t, err)
	require.Contains(t, out, "Invalid argument")
	require.Equal(t, "failed", s.attr("f", "state"))
	require.Contains(t, s.attr("f", "error"), "two Uploads of 1.1 MiB expired")
	require.Contains(t, s.attr("f", "error"), "that needs a line of 328 B/s")
	require.Equal(t, int64(2), s.API.Stats().UploadsCreated)
	require.Empty(t, s.API.Files())

	s.API.SetIntercept(nil)
	require.NoError(t, s.Up.Retry("f"))
	s.eventually("f", "completed")
	s.one(t, "f", content)
}
