package openai_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/api/openai"
	"uploadfs/uploader/api/retry"
)

func TestNotSent(t *testing.T) {
	complete := func(b api.Backend) error {
		_, err := b.Complete(t.Context(), "upload_1", []string{"part_1"}, "")
		return err
	}
	t.Run("connection refused", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		url := "http://" + listener.Addr().String()
		require.NoError(t, listener.Close())
		err = complete(newBackend(t, url, openai.Config{}))
		require.ErrorIs(t, err, api.ErrNotSent)
		require.Equal(t, api.Transient, api.KindOf(err))
		require.ErrorContains(t, err, "complete upload_1: no answer: dial tcp 127.0.0.1:")
		op := (*net.OpError)(nil)
		require.ErrorAs(t, err, &op)
		require.Equal(t, "dial", op.Op)
	})
	t.Run("unknown authority", func(t *testing.T) {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = silent
		server.StartTLS()
		defer server.Close()
		err := complete(newBackend(t, server.URL, openai.Config{}))
		require.ErrorIs(t, err, api.ErrNotSent)
		require.ErrorContains(t, err, "SSL_CERT_FILE")
	})
	t.Run("broken after it was sent", func(t *testing.T) {
		url := rawServer(t, nil, func(_ net.Conn, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		err := complete(newBackend(t, url, openai.Config{}))
		require.NotErrorIs(t, err, api.ErrNotSent)
		require.EqualError(t, err, "complete upload_1: no answer: the server closed the connection")
	})
}

// TestFaultsEndInACorrectFile sends one upload, with the retry decorator, through
// every fault that a network and a service can have.
func TestFaultsEndInACorrectFile(t *testing.T) {
	unavailable := &local.Fault{Status: http.StatusServiceUnavailable, RawBody: "<h1>503 Service Unavailable</h1>"}
	failed := &local.Fault{Status: http.StatusInternalServerError, Message: "The server had an error."}
	limited := &local.Fault{Status: http.StatusTooManyRequests, Message: "Rate limit reached.", RetryAfter: time.Second}
	reset := &local.Fault{Reset: true}
	type step struct {
		op    local.Op
		stage local.Stage
		fault *local.Fault
	}
	steps := []step{
		{local.OpCreate, local.StageHead, failed},
		{local.OpCreate, local.StageDone, reset},
		{local.OpPart, local.StageHead, limited},
		{local.OpPart, local.StageHead, unavailable},
		{local.OpPart, local.StageBody, reset},
		{local.OpPart, local.StageReceived, failed},
		{local.OpPart, local.StageDone, reset},
		{local.OpComplete, local.StageHead, limited},
		{local.OpComplete, local.StageDone, reset},
		{local.OpFileList, local.StageHead, unavailable},
	}
	l := serve(t, false)
	var at atomic.Int64
	l.SetIntercept(func(p local.Point) *local.Fault {
		if i := at.Load(); i < int64(len(steps)) && steps[i].op == p.Op && steps[i].stage == p.Stage &&
			(p.Stage != local.StageBody || p.Received > 1<<20) && at.CompareAndSwap(i, i+1) {
			return steps[i].fault
		}
		return nil
	})
	b := retry.New(newBackend(t, l.url, openai.Config{}), retry.Options{First: time.Millisecond, Max: 10 * time.Millisecond})

	var notes []string
	ctx := api.WithRetryNote(t.Context(), func(err error, _ time.Time) {
		if err != nil {
			notes = append(notes, err.Error())
		}
	})
	content := bytes.Repeat([]byte("0123456789abcdef"), 256<<10) // 4 MiB
	large := spec
	large.Bytes = int64(len(content))
	since := time.Now()
	up, err := b.Create(ctx, large)
	require.NoError(t, err)
	part, err := b.AddPart(ctx, up.ID, section(content))
	require.NoError(t, err)
	_, err = b.Complete(ctx, up.ID, []string{part}, "")
	require.ErrorIs(t, err, api.ErrAlreadyCompleted, "the answer was lost, and the repeated call refused")
	found, err := b.FindFiles(ctx, large, since)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.True(t, bytes.Equal(content, l.content(t, found[0].ID)), "the File's bytes differ")
	require.Equal(t, int64(len(steps)), at.Load(), "every fault happened")
	require.Len(t, notes, len(steps), "each was tried again")
	require.Contains(t, notes, "part "+up.ID+": 503 Service Unavailable: 503 Service Unavailable")
	require.Contains(t, notes, "part "+up.ID+": Rate limit reached.")
	require.Len(t, l.Files(), 1)
}

var errDisk = errors.New("input/output error")

// TestBrokenFileDuringPart checks that an error of the file does not count as an
// error of the network, which would be retried.
func TestBrokenFileDuringPart(t *testing.T) {
	b := fake(t, openai.Config{}, discard)
	_, err := b.AddPart(t.Context(), "upload_1", io.NewSectionReader(badDisk{}, 0, 8<<20))
	require.ErrorIs(t, err, errDisk)
	require.EqualError(t, err, "part upload_1: input/output error")
	require.Equal(t, api.Local, api.KindOf(err))
}

type badDisk struct{ allZeros }

func (d badDisk) ReadAt(b []byte, off int64) (int, error) {
	if off > 4<<20 {
		return 0, errDisk
	}
	return d.allZeros.ReadAt(b, off)
}
