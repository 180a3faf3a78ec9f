package fusefs_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/local"
)

// once makes one request fail: the first that reaches a place.
func once(op local.Op, stage local.Stage, f local.Fault) local.InterceptFunc {
	var hit atomic.Bool
	return func(p local.Point) *local.Fault {
		if p.Op != op || p.Stage != stage || hit.Swap(true) {
			return nil
		}
		return &f
	}
}

// loseAnswer carries out the next Complete and drops its answer.
func (s *stack) loseAnswer() {
	s.API.SetIntercept(once(local.OpComplete, local.StageDone, local.Fault{Reset: true}))
}

// foreign makes a File of the default purpose as another client.
func (s *stack) foreign(name string, content []byte) (id string) {
	s.t.Helper()
	return s.foreignOf("user_data", name, content)
}

// foreignOf makes a File as another client.
func (s *stack) foreignOf(purpose, name string, content []byte) (id string) {
	s.t.Helper()
	ctx := context.Background()
	up, err := s.http.Create(ctx, api.Spec{Filename: name, Purpose: purpose, MimeType: "text/plain", Bytes: int64(len(content))})
	require.NoError(s.t, err)
	part, err := s.http.AddPart(ctx, up.ID, io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content))))
	require.NoError(s.t, err)
	file, err := s.http.Complete(ctx, up.ID, []string{part}, "")
	require.NoError(s.t, err)
	return file.ID
}

// delete deletes a File at the API, as only its owner may.
func (s *stack) delete(id string) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodDelete, s.URL+"/files/"+id, nil)
	require.NoError(s.t, err)
	req.Header.Set("Authorization", "Bearer test-key")
	res, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	require.NoError(s.t, res.Body.Close())
	require.Equal(s.t, http.StatusOK, res.StatusCode)
	http.DefaultClient.CloseIdleConnections()
}

// ids returns the IDs of all Files, oldest first.
func (s *stack) ids() (ids []string) {
	for _, f := range s.API.Files() {
		ids = append(ids, f.ID)
	}
	return ids
}

// TestLostAnswerAmongOlderFiles: Files of the same name and size that belong to
// earlier contents are not taken for the result.
func TestLostAnswerAmongOlderFiles(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`printf one > f; rm f; printf two > f; mkdir d; printf six > d/f`)
	s.loseAnswer()
	s.run(`printf ten > f`)
	s.completed("f", []byte("ten"))
	require.Equal(t, s.ids()[3], s.attr("f", "file_id"))

	// Not carried out at all: there is no new File.
	s.API.SetIntercept(once(local.OpComplete, local.StageReceived, local.Fault{Reset: true}))
	s.run(`printf new > f; printf end > d/f`)
	s.completed("f", []byte("new"))
	s.completed("d/f", []byte("end"))
	require.Len(t, s.ids(), 6)
}

// TestLostAnswerOfAnotherClock: the API's clock is hours away from ours. Its File is
// found, and its Uploads have not expired before they began.
func TestLostAnswerOfAnotherClock(t *testing.T) {
	for _, away := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		s := newStack(t, stackOptions{API: local.Options{Now: func() time.Time { return time.Now().Add(away) }}})
		s.run(`printf one > f`)
		s.loseAnswer()
		s.run(`printf two > f`)
		s.completed("f", []byte("two"))
		require.Equal(t, s.ids()[1], s.attr("f", "file_id"), "%v", away)
		require.Len(t, s.ids(), 2, "%v", away)
		require.Equal(t, int64(2), s.API.Stats().UploadsCreated, "%v", away)
	}
}

// TestLostAnswersOfNamesakes loses the answers for two files at the same time that
// differ in content only.
func TestLostAnswersOfNamesakes(t *testing.T) {
	s := newStack(t, stackOptions{})
	var lost atomic.Int64
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpComplete && p.Stage == local.StageDone && lost.Add(1) <= 4 {
			return &local.Fault{Reset: true}
		}
		return nil
	})
	s.run(`mkdir 1 2 3 4; for i in 1 2 3 4; do echo $i > $i/f & done; wait`)
	for _, i := range []string{"1", "2", "3", "4"} {
		s.eventually(i+"/f", "completed")
		s.completed(i+"/f", []byte(i+"\n"))
	}
	require.Len(t, s.ids(), 4)
}

// TestLostAnswerWithTwoCandidates: another client makes a File that looks the same.
// The daemon cannot tell which is ours, until one of them is deleted.
func TestLostAnswerWithTwoCandidates(t *testing.T) {
	// Its clock stands still: a File of an earlier second is no candidate.
	now := time.Now()
	s := newStack(t, stackOptions{API: local.Options{Now: func() time.Time { return now }}})
	theirs := s.foreign("f", []byte("theirs"))
	s.loseAnswer()
	out, err := s.sh(`printf ours.. | dd of=f status=none`)
	require.Error(t, err)
	require.Contains(t, out, "Invalid argument")
	require.Equal(t, "failed", s.attr("f", "state"))
	require.Empty(t, s.attr("f", "file_id"))
	ids := s.ids()
	require.Len(t, ids, 2)
	for _, id := range ids {
		require.Contains(t, s.attr("f", "error"), id, "both are named")
	}

	require.NoError(t, s.Up.Retry("f"))
	s.eventually("f", "failed")
	s.unmount()
	s.mount()
	s.eventually("f", "failed")
	require.Equal(t, ids, s.ids(), "trying again makes no further File")

	s.delete(theirs)
	s.unmount()
	s.mount()
	s.eventually("f", "completed")
	s.completed("f", []byte("ours.."))
	require.Equal(t, slices.DeleteFunc(ids, func(id string) bool { return id == theirs }), s.ids())
}

// TestLostAnswerIsLookedForAtTheNextMount unmounts before the daemon could search.
func TestLostAnswerIsLookedForAtTheNextMount(t *testing.T) {
	for name, stage := range map[string]local.Stage{"the File exists": local.StageDone, "it does not": local.StageReceived} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, stackOptions{Background: true})
			o := &outage{place: place{op: local.OpComplete, stage: stage}, over: make(chan struct{}),
				kind: answer(local.Fault{Reset: true})}
			s.API.SetIntercept(o.intercept)
			s.run(`echo x > f`)
			s.retrying(t, "f", "no answer")
			s.unmount()
			close(o.over)
			s.mount()
			s.eventually("f", "completed")
			s.one(t, "f", []byte("x\n"))
			require.Equal(t, int64(1), s.API.Stats().PartsStored)
		})
	}
}

// TestLostAnswerOfAnExpiredUpload: the Upload expires before the daemon could find
// out whether it was completed in time.
func TestLostAnswerOfAnExpiredUpload(t *testing.T) {
	for name, c := range map[string]struct {
		stage   local.Stage
		uploads int64
	}{"it was": {local.StageDone, 1}, "it was not": {local.StageReceived, 2}} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			s := newStack(t, stackOptions{API: local.Options{Now: clock.now}})
			src, content := source(t, 100)
			o := &outage{place: place{op: local.OpComplete, stage: c.stage}, over: make(chan struct{})}
			o.kind = func(local.Point) *local.Fault {
				clock.pass(2 * local.DefaultUploadTTL)
				return &local.Fault{Reset: true}
			}
			s.API.SetIntercept(o.intercept)
			copied := s.copy(src, "f")
			s.retrying(t, "f", "no answer")
			close(o.over)
			require.NoError(t, <-copied)
			s.one(t, "f", content)
			require.Equal(t, c.uploads, s.API.Stats().UploadsCreated)
		})
	}
}
