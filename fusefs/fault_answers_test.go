package fusefs_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// place is the point at which a request fails.
type place struct {
	name  string
	op    local.Op
	stage local.Stage
	after int64 // bytes of the body
}

var places = []place{
	{"at create", local.OpCreate, local.StageHead, 0},
	{"with the reply to create lost", local.OpCreate, local.StageDone, 0},
	{"at a part's first byte", local.OpPart, local.StageBody, 1},
	{"in the middle of a part", local.OpPart, local.StageBody, partSize / 2},
	{"after a part's last byte", local.OpPart, local.StageReceived, 0},
	{"with the reply to a part lost", local.OpPart, local.StageDone, 0},
	{"at complete", local.OpComplete, local.StageHead, 0},
	{"after complete was read", local.OpComplete, local.StageReceived, 0},
	{"with the reply lost after the File exists", local.OpComplete, local.StageDone, 0},
}

// outage makes every request fail that reaches a place, until it is over.
type outage struct {
	place
	kind func(local.Point) *local.Fault
	over chan struct{}
	hits atomic.Int64
}

func (o *outage) intercept(p local.Point) *local.Fault {
	select {
	case <-o.over:
		return nil
	default:
	}
	switch {
	case p.Op == local.OpFileList && p.Stage == local.StageHead:
		// The search for a File whose Complete was not answered comes later.
		select {
		case <-o.over:
		case <-p.Request.Context().Done():
		}
		return nil
	case p.Op != o.op || p.Stage != o.stage || p.Received < o.after:
		return nil
	}
	o.hits.Add(1)
	return o.kind(p)
}

const proxyPage = "<html><head><title>Bad Gateway</title></head><body>the proxy's words</body></html>"

// kinds are the ways to fail, and what the attribute `error` says of each.
var kinds = []struct {
	name   string
	fault  func(local.Point) *local.Fault
	reason string
}{
	{"500", answer(local.Fault{Status: 500, Message: "the server's words"}), "the server's words"},
	{"503", answer(local.Fault{Status: 503, Message: "the server's words"}), "the server's words"},
	{"reset", answer(local.Fault{Reset: true}), "no answer: "},
	{"HTML", answer(local.Fault{Status: 502, RawBody: proxyPage}), "the proxy's words"},
	{"a page of success", answer(local.Fault{Status: 200, RawBody: proxyPage}), "unexpected answer"},
	{"garbage", answer(local.Fault{Status: 200, RawBody: "{\x00\xff"}), "unexpected answer"},
	{"an object of another kind", answer(local.Fault{Status: 200, RawBody: `{"id":"x","object":"list"}`}), "unexpected answer"},
}

func answer(f local.Fault) func(local.Point) *local.Fault {
	return func(local.Point) *local.Fault { return &f }
}

// through copies a file into the mount while requests fail. The outage ends when the
// file is retried for the reason given. Then the copy must succeed with one File.
func (s *stack) through(t *testing.T, name, src string, content []byte, o *outage, reason string) {
	t.Helper()
	o.over = make(chan struct{})
	end := sync.OnceFunc(func() { close(o.over) })
	t.Cleanup(end)
	s.API.SetIntercept(o.intercept)
	copied := s.copy(src, name)
	s.retrying(t, name, reason)
	end()
	require.NoError(t, <-copied)
	require.Positive(t, o.hits.Load())
	s.one(t, name, content)
}

// copy copies a file into the mount in the background.
func (s *stack) copy(src, name string) <-chan error {
	copied := make(chan error, 1)
	go func() {
		out, err := s.sh(`cp "$1" "$2"`, src, name)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		copied <- err
	}()
	return copied
}

// retrying waits until status shows the file as retrying, with the reason and either
// the time of the next attempt or the one under way.
func (s *stack) retrying(t *testing.T, name, reason string) {
	t.Helper()
	require.Eventually(t, func() bool {
		snapshot, err := s.Up.Snapshot()
		require.NoError(t, err)
		for _, f := range snapshot.Files {
			if f.Path == name && f.State == "retrying" && strings.Contains(f.Error, reason) {
				return f.Calls > 0 || !f.NextAttempt.IsZero()
			}
		}
		return false
	}, patience, 500*time.Microsecond, "%s should be retried because of %q", name, reason)
}

// one checks that exactly one File has this name, that it has these bytes, and that
// the file's file_id names it.
func (s *stack) one(t *testing.T, name string, content []byte) {
	t.Helper()
	s.completed(name, content)
	var ids []string
	for _, f := range s.API.Files() {
		if f.Filename == name {
			ids = append(ids, f.ID)
		}
	}
	require.Equal(t, []string{s.attr(name, "file_id")}, ids, "one File for one content")
}

// TestOutageAtEachPlace fails each call in each way at each place.
func TestOutageAtEachPlace(t *testing.T) {
	s := newStack(t, stackOptions{})
	src, content := source(t, partSize+partSize/8)
	for i, p := range places {
		for j, k := range kinds {
			if !sampled(i, j, len(places), len(kinds)) {
				continue
			}
			t.Run(k.name+" "+p.name, func(t *testing.T) {
				s.through(t, k.name+" "+p.name, src, content, &outage{place: p, kind: k.fault}, k.reason)
			})
		}
	}
}

// TestRetryAfter: answers with Retry-After of a second. The test sees the wait, so one
// such answer is enough.
func TestRetryAfter(t *testing.T) {
	s := newStack(t, stackOptions{})
	src, content := source(t, partSize+partSize/8)
	for _, p := range places {
		if p.stage == local.StageDone || p.stage == local.StageReceived {
			continue // Retry-After comes with a refusal
		}
		t.Run(p.name, func(t *testing.T) {
			var told atomic.Bool
			began := time.Now()
			s.through(t, "429 "+p.name, src, content, &outage{place: p, kind: func(local.Point) *local.Fault {
				if told.Swap(true) {
					return nil
				}
				return &local.Fault{Status: 429, Code: "rate_limit_exceeded", Message: "Rate limit reached.", RetryAfter: time.Second}
			}}, "Rate limit reached.")
			require.GreaterOrEqual(t, time.Since(began), time.Second, "Retry-After is honoured")
		})
	}
}

// TestStall: the API takes a request and then falls silent.
func TestStall(t *testing.T) {
	s := newStack(t, stackOptions{Stall: 250 * time.Millisecond})
	src, content := source(t, partSize+partSize/8)
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			o := &outage{place: p}
			o.kind = func(local.Point) *local.Fault {
				<-o.over // a server that does not read does not learn that its client has gone
				return &local.Fault{Reset: true}
			}
			s.through(t, "stall "+p.name, src, content, o, "no progress for")
		})
	}
}

// TestSlow: line and service are slow, and nothing fails.
func TestSlow(t *testing.T) {
	s := newStack(t, stackOptions{})
	src, content := source(t, partSize+partSize/8)
	s.API.SetFaults(local.Faults{Latency: 50 * time.Millisecond, RatePerConnection: 8 * partSize})
	s.run(`cp "$1" slow`, src)
	s.one(t, "slow", content)
	require.Equal(t, int64(2), s.API.Stats().PartsStored, "slow is no reason to send anything twice")
}

// TestTruncatedAnswer cuts answers in half, after the call was carried out.
func TestTruncatedAnswer(t *testing.T) {
	s := newStack(t, stackOptions{Wrap: cutting})
	src, content := source(t, partSize+partSize/8)
	for _, p := range places {
		if p.stage != local.StageDone {
			continue
		}
		t.Run(string(p.op), func(t *testing.T) {
			s.through(t, "cut at "+string(p.op), src, content, &outage{place: p, kind: func(p local.Point) *local.Fault {
				p.Request.Context().Value(cutKey{}).(*cutWriter).cut.Store(true)
				return nil
			}}, "cut short")
		})
	}
}

// cutKey is the context key of a request's cutWriter.
type cutKey struct{}

// cutWriter sends half of an answer and breaks the connection, once it is armed.
type cutWriter struct {
	http.ResponseWriter
	cut atomic.Bool
}

func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *cutWriter) Write(b []byte) (int, error) {
	if !w.cut.Load() {
		return w.ResponseWriter.Write(b)
	}
	w.ResponseWriter.Write(b[:len(b)/2])
	http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// cutting wraps every answer in a cutWriter, which the request's context holds.
func cutting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cw := &cutWriter{ResponseWriter: w}
		next.ServeHTTP(cw, r.WithContext(context.WithValue(r.Context(), cutKey{}, cw)))
	})
}
