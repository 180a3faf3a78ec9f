package fusefs_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// TestRefusedUntilTheNextMount: after a permanent refusal the next mount tries again
// by itself.
func TestRefusedUntilTheNextMount(t *testing.T) {
	s := newStack(t, stackOptions{})
	src, content := source(t, partSize+partSize/8)
	refusal := &local.Fault{Status: 429, Code: "insufficient_quota", Message: "You exceeded your current quota."}
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpComplete && p.Stage == local.StageHead {
			return refusal
		}
		return nil
	})
	out, err := s.sh(`cp "$1" f`, src)
	require.Error(t, err)
	require.Contains(t, out, "Disk quota exceeded")
	_, err = s.sh(`cp "$1" removed`, src)
	require.Error(t, err)
	s.run(`rm removed`)

	s.unmount()
	s.mount()
	s.eventually("f", "failed") // still
	require.Contains(t, s.attr("f", "error"), "You exceeded your current quota.")

	s.API.SetIntercept(nil)
	s.unmount()
	s.mount()
	s.eventually("f", "completed")
	s.one(t, "f", content)
	require.Equal(t, int64(2*2), s.API.Stats().PartsStored, "the parts that were acknowledged still serve")
	require.Len(t, s.API.Files(), 1)
}

// TestCloseTimeoutInAnOutage: close gives up, the upload does not.
func TestCloseTimeoutInAnOutage(t *testing.T) {
	s := newStack(t, stackOptions{Timeout: 100 * time.Millisecond})
	src, content := source(t, partSize+partSize/8)
	for _, p := range places {
		if p.op == local.OpPart && p.stage != local.StageBody {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			o := &outage{place: p, kind: answer(local.Fault{Status: 503, Message: "later"}), over: make(chan struct{})}
			s.API.SetIntercept(o.intercept)
			out, err := s.sh(`cp "$1" "$2"`, src, p.name)
			require.Error(t, err)
			require.Contains(t, out, "Connection timed out")
			s.retrying(t, p.name, "later")
			close(o.over)
			s.eventually(p.name, "completed")
			s.one(t, p.name, content)
		})
	}
}
