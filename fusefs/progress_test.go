//go:build linux

package fusefs_test

import (
	"encoding/json"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

// info is the whole status of a file.
func (s *stack) info(name string) (st uploader.Status) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal([]byte(s.attr(name, "info")), &st))
	return st
}

// stayIn keeps a request waiting until its gate is open, or its client has gone.
func stayIn(p local.Point, gate <-chan struct{}) {
	select {
	case <-gate:
	case <-p.Request.Context().Done():
	}
}

// Bytes count when the peer's kernel has acknowledged them, long before the API has a
// part. Of a file that waits for its next attempt the status says whether that is under
// way.
func TestProgressInsideParts(t *testing.T) {
	s := newStack(t, stackOptions{Background: true, Part: 8 * mib})
	gate := make(chan struct{})
	var parts atomic.Int32
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageHead {
			parts.Add(1)
		}
		if p.Op == local.OpPart && p.Stage == local.StageBody && p.Received >= 2*mib {
			stayIn(p, gate) // no more of it is read
		}
		return nil
	})
	src, content := source(t, 24*mib)
	s.run(`cp "$1" big`, src)
	acked := func() int64 {
		n, _ := strconv.ParseInt(s.attr("big", "bytes_acknowledged"), 10, 64)
		return n
	}
	require.Eventually(t, func() bool { return acked() >= 3*mib }, patience, 5*time.Millisecond)
	require.Equal(t, "0/3", s.attr("big", "progress"))
	require.Equal(t, "0", s.attr("big", "bytes_sent"))
	listed := s.run(`getfattr -d big`)
	require.Contains(t, listed, "user.uploadfs.bytes_acknowledged=")
	require.Contains(t, listed, "user.uploadfs.rate=")
	st := s.info("big")
	require.Equal(t, 3, st.Calls)
	require.False(t, st.Queued)
	require.Less(t, st.Acknowledged, st.Size, "the peer reads nothing")

	// Another file has the last slot, and a third one waits.
	s.run(`cp "$1" second && cp "$1" third`, src)
	require.Eventually(t, func() bool { return parts.Load() == 4 && s.info("third").UploadID != "" && s.info("third").Calls == 0 }, patience, 5*time.Millisecond)
	require.True(t, s.info("third").Queued)
	snap, err := s.Up.Snapshot()
	require.NoError(t, err)
	require.Equal(t, 3, snap.Counts[state.Uploading])
	require.Equal(t, 1, snap.Queued)
	require.EqualValues(t, 3*len(content), snap.Sending.Bytes)
	require.GreaterOrEqual(t, snap.Sending.Acknowledged, st.Acknowledged)

	close(gate)
	for _, name := range []string{"big", "second", "third"} {
		s.eventually(name, "completed")
		require.EqualValues(t, len(content), s.info(name).Acknowledged)
	}
	require.NotContains(t, s.run(`getfattr -d big`), "bytes_acknowledged")
	require.Empty(t, s.attr("big", "rate"))

	// A retrying file says that an attempt is under way.
	again := make(chan struct{})
	parts.Store(0)
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageHead {
			if parts.Add(1) == 1 {
				return &local.Fault{Status: 500, Message: "a bad day"}
			}
			stayIn(p, again)
		}
		return nil
	})
	s.run(`echo hello > small`)
	require.Eventually(t, func() bool { return parts.Load() == 2 }, patience, 5*time.Millisecond)
	st = s.info("small")
	require.Equal(t, state.Retrying, st.State)
	require.Equal(t, 1, st.Calls)
	require.True(t, st.NextAttempt.IsZero(), "it is the one under way")
	require.Contains(t, st.Error, "a bad day")
	close(again)
	s.eventually("small", "completed")
}
