package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// serve starts a control socket in a directory whose path is longer than a
// socket's address may be.
func serve(t *testing.T, h handlers) (dir string, c *control) {
	dir = filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	require.NoError(t, os.Mkdir(dir, 0o700))
	c, err := serveControl(dir, h, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { c.close() })
	return dir, c
}

// mountOf is a mount of this user's with dir as its source.
func mountOf(dir string) Entry { return Entry{Source: dir, Owner: os.Geteuid()} }

func TestControl(t *testing.T) {
	const odd = "dir/\xff\n&a=b +%20"
	h := handlers{
		status: func(context.Context, uploader.Query) (Report, error) {
			return Report{MountPoint: "/mnt", PID: 7, Snapshot: uploader.Snapshot{Counts: map[state.State]int{state.Failed: 2}}}, nil
		},
		retry: func(path string) (int, error) {
			if path != odd {
				return 0, fmt.Errorf("got %q", path)
			}
			return 7, nil
		},
		unmount: func(context.Context, UnmountOptions) (Outcome, error) { return Outcome{}, syscall.EBUSY },
	}
	dir, c := serve(t, h)
	fi, err := os.Stat(filepath.Join(dir, socketFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())

	client := NewClient(mountOf(dir))
	ctx := t.Context()
	rep, err := client.Status(ctx, uploader.Query{})
	require.NoError(t, err)
	require.Equal(t, "/mnt", rep.MountPoint)
	require.Equal(t, 2, rep.Counts[state.Failed])
	require.NotNil(t, rep.Files)

	n, err := client.Retry(ctx, odd)
	require.NoError(t, err)
	require.Equal(t, 7, n)
	_, err = client.Retry(ctx, "x")
	require.EqualError(t, err, `got "x"`)

	_, err = client.Unmount(ctx, UnmountOptions{})
	require.ErrorIs(t, err, syscall.EBUSY)
	require.True(t, reachable(mountOf(dir)))

	require.NoError(t, c.close())
	require.NoFileExists(t, filepath.Join(dir, socketFile))
	_, err = client.Status(ctx, uploader.Query{})
	require.ErrorIs(t, err, ErrNoDaemon)
	require.False(t, reachable(mountOf(dir)))
}

func TestControlReplacesADeadSocket(t *testing.T) {
	dir := t.TempDir()
	l, err := listenIn(dir)
	require.NoError(t, err)
	require.NoError(t, l.Close()) // as a kill leaves it: the file without a listener
	require.FileExists(t, filepath.Join(dir, socketFile))
	require.ErrorIs(t, NewClient(mountOf(dir)).Cancel(t.Context(), "x"), ErrNoDaemon)
	c, err := serveControl(dir, handlers{cancel: func(string) error { return nil }}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, NewClient(mountOf(dir)).Cancel(t.Context(), "x"))
	require.NoError(t, c.close())
}

func TestControlHasLimits(t *testing.T) {
	entered := make(chan struct{}, controlCalls)
	release := make(chan struct{})
	dir, _ := serve(t, handlers{cancel: func(string) error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	client := NewClient(mountOf(dir))
	require.Error(t, client.Cancel(t.Context(), strings.Repeat("x", controlBody)), "no path is that long")

	errs := make(chan error, controlCalls)
	for range controlCalls {
		go func() { errs <- client.Cancel(context.Background(), "x") }()
	}
	for range controlCalls {
		<-entered
	}
	require.ErrorContains(t, client.Cancel(t.Context(), "x"), "too many calls")
	close(release)
	for range controlCalls {
		require.NoError(t, <-errs)
	}
}

func TestClientDoesNotTrustTheAnswer(t *testing.T) {
	dir := t.TempDir()
	l, err := listenIn(dir)
	require.NoError(t, err)
	defer l.Close()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "<html>no", http.StatusInternalServerError)
	})}
	go server.Serve(l)
	defer server.Close()
	require.ErrorContains(t, NewClient(mountOf(dir)).Cancel(t.Context(), "x"), "the daemon answered 500")
}

func TestPeerIsAwaited(t *testing.T) {
	dir := t.TempDir()
	l, err := listenIn(dir)
	require.NoError(t, err)
	defer l.Close()
	conn, err := dialIn(t.Context(), dir)
	require.NoError(t, err)
	defer conn.Close()
	self, err := peer(conn)
	require.NoError(t, err)
	defer self.close()
	ended := errors.New("ended")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, ended)
	defer cancel()
	require.ErrorIs(t, self.wait(ctx), ended, "this process still runs")
}

func TestNotifySystemd(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	require.NoError(t, err)
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	notifySystemd("READY=1")
	buf := make([]byte, 100)
	n, err := l.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "READY=1", string(buf[:n]))
}
