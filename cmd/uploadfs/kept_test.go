//go:build linux

package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/state"
)

// cp copies a file into the mount and wants that to fail.
func (b *box) cpFails(name string) {
	b.Helper()
	require.NotZero(b, b.do(b.command("cp", b.path("source"), b.point+"/"+name)).code)
}

// What has failed or was cancelled during a mount makes its unmount fail. What an
// earlier mount has left is named, and does not.
func TestUnmountFailsForWhatFailedInThisMount(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.write("source", "hello")
	b.mount()
	started, release := a.block(t)
	cp := b.command("cp", b.path("source"), b.point+"/cancelled")
	copied := make(chan result, 1)
	go func() { copied <- b.do(cp) }()
	<-started
	b.ok("cancel", b.point+"/cancelled")
	r := <-copied
	require.NotZero(t, r.code)
	require.Contains(t, r.stderr, "Input/output error", "a close that waits is told")
	st := b.info("cancelled")
	require.Equal(t, state.Interrupted, st.State)
	require.Equal(t, "its upload was cancelled; `uploadfs retry` sends it as it is", st.Error)
	require.Empty(t, st.UploadID)
	b.await("the API's Upload is cancelled too", func() bool { return a.Uploads()[0].Status == "cancelled" })
	release()
	a.refuse(400, "no such luck")
	b.cpFails("refused")
	r = b.uploadfs("unmount", b.point)
	require.Equal(t, 1, r.code)
	require.Equal(t, "uploadfs: failed, kept: refused\nuploadfs: interrupted, kept: cancelled\n"+
		"uploadfs: 2 files are kept without a File; mount again, see uploadfs status, then uploadfs retry DIR\n", r.stderr)

	// The next mount tries what was refused again. That it is refused again is no news.
	b.mount()
	b.await("it is tried again", func() bool { return b.info("refused").State == state.Failed })
	require.True(t, b.info("refused").Earlier)
	r = b.uploadfs("unmount", b.point)
	require.Zero(t, r.code)
	require.Equal(t, "uploadfs: failed before this mount, kept: refused\nuploadfs: interrupted before this mount, kept: cancelled\n", r.stderr)

	// What the user tries again counts again, and so does new content.
	b.mount()
	b.ok("retry", b.point+"/refused")
	b.await("it is refused", func() bool { return b.info("refused").State == state.Failed })
	b.cpFails("cancelled")
	r = b.uploadfs("unmount", b.point)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "uploadfs: failed, kept: cancelled\nuploadfs: failed, kept: refused\n")

	a.SetIntercept(nil)
	b.mount()
	b.ok("wait", b.point+"/refused", b.point+"/cancelled")
	b.refused(1, "the file is completed: there is no upload to cancel", "cancel", b.point+"/refused")
	b.ok("unmount", b.point)
}

// A busy mount can be taken away, and a second call can end the waiting for uploads.
func TestUnmountLazy(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.defaultState()
	b.mount("--drain-timeout", testTimeout.String(), "--close", "background", "--settle", "0")
	started, _ := a.block(t)
	b.shOK(`echo hello > "$M/sent"`)
	<-started
	f, err := os.Create(b.point + "/open")
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("hello")
	require.NoError(t, err)
	b.refused(1, "or give --lazy", "unmount", "--timeout", "0s", b.point)

	waiting := make(chan result, 1)
	lazy := b.command(binary, "unmount", "--lazy", b.point)
	go func() { waiting <- b.do(lazy) }()
	b.await("the mount is gone", func() bool { return !b.mounted() })
	b.refused(2, "--force waits for no upload", "unmount", "--force", "--timeout", "1s", b.point)
	for _, r := range []result{b.uploadfs("unmount", "--force", b.point), <-waiting} {
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "uploadfs: not uploaded yet: open\nuploadfs: not uploaded yet: sent\n")
	}
}

// A file that waits for its name can be cancelled, one that is being written cannot.
func TestCancelOfHeldAndWritten(t *testing.T) {
	b := self(t)
	b.mount("--embedded")
	b.shOK(`echo hello > "$M/a.tmp"`)
	b.ok("cancel", b.point+"/a.tmp")
	require.Equal(t, state.Interrupted, b.info("a.tmp").State)
	f, err := os.Create(b.point + "/written")
	require.NoError(t, err)
	_, err = f.WriteString("hello")
	require.NoError(t, err)
	b.refused(1, "a program is writing it", "cancel", b.point+"/written")
	require.NoError(t, f.Close())
	require.Equal(t, state.Completed, b.info("written").State)
	b.refused(1, "not a regular file", "cancel", b.point)
	b.refused(1, "no such file", "cancel", b.point+"/nothing")

	require.NoError(t, unix.Kill(b.pid(), unix.SIGSTOP))
	r := b.uploadfs("unmount", "--force", b.point)
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stderr, "the daemon was gone")
	require.False(t, b.mounted())
}
