package openai_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/api/openai"
)

func TestStall(t *testing.T) {
	const short = 50 * time.Millisecond
	cfg := openai.Config{Stall: short, AnswerStall: short, SlowestRate: 1 << 30}
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done() // until the client has gone
	}
	requireStalled := func(t *testing.T, err error) {
		require.ErrorContains(t, err, "no progress for 50ms")
		require.Equal(t, api.Transient, api.KindOf(err))
		require.NotErrorIs(t, err, api.ErrNotSent)
	}
	t.Run("no answer", func(t *testing.T) {
		_, err := fake(t, cfg, hang).AddPart(t.Context(), "upload_1", section([]byte("abcdef")))
		requireStalled(t, err)
		_, err = fake(t, cfg, hang).Create(t.Context(), spec)
		requireStalled(t, err)
	})
	t.Run("the server does not read", func(t *testing.T) {
		release := make(chan struct{})
		url := rawServer(t, nil, func(net.Conn, *http.Request) { <-release })
		defer close(release)
		_, err := newBackend(t, url, cfg).AddPart(t.Context(), "upload_1", io.NewSectionReader(allZeros{}, 0, 64<<20))
		requireStalled(t, err)
	})
	t.Run("half an answer", func(t *testing.T) {
		b := fake(t, cfg, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"id":`)
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		})
		_, err := b.Create(t.Context(), spec)
		requireStalled(t, err)
	})
	t.Run("the answer may take longer", func(t *testing.T) {
		turn := make(chan struct{})
		b := fake(t, openai.Config{Stall: short}, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/complete") {
				<-turn // until a call that began later has stalled
				answer(w, http.StatusOK, object{"id": "upload_1", "status": "completed", "file": object{"id": "file-1"}})
				return
			}
			w.Header().Set("Content-Length", "100")
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		})
		completed := make(chan error, 1)
		go func() {
			_, err := b.Complete(t.Context(), "upload_1", []string{"part_1"}, "")
			completed <- err
		}()
		_, err := b.Create(t.Context(), spec)
		requireStalled(t, err)
		close(turn)
		require.NoError(t, <-completed)
	})
}

// TestSlowIsNotStalled takes longer than the stall limit, with progress.
func TestSlowIsNotStalled(t *testing.T) {
	const limit = 5 * time.Second // many times as long as the network below takes for a piece
	url := rawServer(t, nil, func(conn net.Conn, r *http.Request) {
		_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		piece := make([]byte, 512<<10)
		for {
			_, err := io.ReadFull(r.Body, piece)
			if err != nil {
				break
			}
			time.Sleep(limit / 32) // the network's pace
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"id\":\"part_1\"}")
	})
	began := time.Now()
	_, err := newBackend(t, url, openai.Config{Stall: limit}).
		AddPart(t.Context(), "upload_1", io.NewSectionReader(allZeros{}, 0, 24<<20))
	require.NoError(t, err)
	require.Greater(t, time.Since(began), limit, "the test must be slow to say anything")
}

// watchedFile counts the reads that come too late.
type watchedFile struct {
	allZeros
	closed atomic.Bool
	late   atomic.Int64 // reads after that
}

func (f *watchedFile) ReadAt(b []byte, off int64) (int, error) {
	if f.closed.Load() {
		f.late.Add(1)
	}
	return f.allZeros.ReadAt(b, off)
}

// TestCancelledPart ends the context in the middle of a part. The section must
// not be read after that: its file may be closed.
func TestCancelledPart(t *testing.T) {
	l := serve(t, false)
	b := newBackend(t, l.url, openai.Config{})
	big := spec
	big.Bytes = 64 << 20
	for range 20 {
		up, err := b.Create(t.Context(), big)
		require.NoError(t, err)
		file := &watchedFile{}
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := &api.Error{Kind: api.Stopped, Message: "the daemon is ending"}
		l.SetIntercept(func(p local.Point) *local.Fault {
			if p.ID == up.ID && p.Received > 1<<20 {
				cancel(reason)
			}
			return nil
		})
		_, err = b.AddPart(ctx, up.ID, io.NewSectionReader(file, 0, big.Bytes))
		file.closed.Store(true)
		require.ErrorIs(t, err, reason)
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, api.ErrNotSent)
		require.Equal(t, api.Stopped, api.KindOf(err))
		require.EqualError(t, err, "part "+up.ID+": the daemon is ending")
		require.Zero(t, file.late.Load())
	}
}
