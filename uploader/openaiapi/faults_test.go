package openaiapi_test

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

	"uploadfs/uploader"
	"uploadfs/uploader/localapi"
	"uploadfs/uploader/openaiapi"
	"uploadfs/uploader/retry"
)

func TestNotSent(t *testing.T) {
	complete := func(b uploader.Backend) error {
		_, err := b.Complete(t.Context(), "upload_1", []string{"part_1"}, "")
		return err
	}
	t.Run("connection refused", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		url := "http://" + listener.Addr().String()
		require.NoError(t, listener.Close())
		err = complete(newBackend(t, url, openaiapi.Config{}))
		require.ErrorIs(t, err, uploader.ErrNotSent)
		require.Equal(t, uploader.Transient, uploader.KindOf(err))
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
		err := complete(newBackend(t, server.URL, openaiapi.Config{}))
		require.ErrorIs(t, err, uploader.ErrNotSent)
		require.ErrorContains(t, err, "SSL_CERT_FILE")
	})
	t.Run("broken after it was sent", func(t *testing.T) {
		url := rawServer(t, nil, func(_ net.Conn, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		err := complete(newBackend(t, url, openaiapi.Config{}))
		require.NotErrorIs(t, err, uploader.ErrNotSent)
		require.EqualError(t, err, "complete upload_1: no answer: the server closed the connection")
	})
}

// TestFaultsEndInACorrectFile runs one upload through every fault of a bad
// network and a bad service, with the retry decorator around.
func TestFaultsEndInACorrectFile(t *testing.T) {
	unavailable := &localapi.Fault{Status: http.StatusServiceUnavailable, RawBody: "<h1>503 Service Unavailable</h1>"}
	failed := &localapi.Fault{Status: http.StatusInternalServerError, Message: "The server had an error."}
	limited := &localapi.Fault{Status: http.StatusTooManyRequests, Message: "Rate limit reached.", RetryAfter: time.Second}
	reset := &localapi.Fault{Reset: true}
	type step struct {
		op    localapi.Op
		stage localapi.Stage
		fault *localapi.Fault
	}
	steps := []step{
		{localapi.OpCreate, localapi.StageHead, failed},
		{localapi.OpCreate, localapi.StageDone, reset},
		{localapi.OpPart, localapi.StageHead, limited},
		{localapi.OpPart, localapi.StageHead, unavailable},
		{localapi.OpPart, localapi.StageBody, reset},
		{localapi.OpPart, localapi.StageReceived, failed},
		{localapi.OpPart, localapi.StageDone, reset},
		{localapi.OpComplete, localapi.StageHead, limited},
		{localapi.OpComplete, localapi.StageDone, reset},
		{localapi.OpFileList, localapi.StageHead, unavailable},
	}
	l := serve(t, false)
	var at atomic.Int64
	l.SetIntercept(func(p localapi.Point) *localapi.Fault {
		if i := at.Load(); i < int64(len(steps)) && steps[i].op == p.Op && steps[i].stage == p.Stage &&
			(p.Stage != localapi.StageBody || p.Received > 1<<20) && at.CompareAndSwap(i, i+1) {
			return steps[i].fault
		}
		return nil
	})
	b := retry.New(newBackend(t, l.url, openaiapi.Config{}), retry.Options{First: time.Millisecond, Max: 10 * time.Millisecond})

	var notes []string
	ctx := uploader.WithRetryNote(t.Context(), func(err error, _ time.Time) {
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
	require.ErrorIs(t, err, uploader.ErrOutcomeUnknown)
	found, err := b.FindFiles(ctx, large, since)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.True(t, bytes.Equal(content, l.content(t, found[0].ID)), "the File's bytes differ")
	require.Equal(t, int64(len(steps)), at.Load(), "every fault happened")
	require.Len(t, notes, len(steps)-1, "all but the lost completion were tried again")
	require.Contains(t, notes, "part "+up.ID+": 503 Service Unavailable: 503 Service Unavailable")
	require.Contains(t, notes, "part "+up.ID+": Rate limit reached.")
	require.Len(t, l.Files(), 1)
}

var errDisk = errors.New("input/output error")

// TestBrokenFileDuringPart checks that an error of the file is not taken for one
// of the network, which would be tried again.
func TestBrokenFileDuringPart(t *testing.T) {
	b := fake(t, openaiapi.Config{}, discard)
	_, err := b.AddPart(t.Context(), "upload_1", io.NewSectionReader(badDisk{}, 0, 8<<20))
	require.ErrorIs(t, err, errDisk)
	require.EqualError(t, err, "part upload_1: input/output error")
	require.Equal(t, uploader.Local, uploader.KindOf(err))
}

type badDisk struct{ allZeros }

func (d badDisk) ReadAt(b []byte, off int64) (int, error) {
	if off > 4<<20 {
		return 0, errDisk
	}
	return d.allZeros.ReadAt(b, off)
}
