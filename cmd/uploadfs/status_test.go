//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
)

// What status makes of mounts that do not answer, or that are not what they look like.

// fakeMount mounts a FUSE filesystem that no process serves, as the user uid would.
func (b *box) fakeMount(name, fstype, source string, uid int) (point string) {
	b.Helper()
	point = b.path(name)
	require.NoError(b, os.Mkdir(point, 0o755))
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(b, err)
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other", fd, uid, uid)
	require.NoError(b, unix.Mount(source, point, fstype, 0, data))
	b.Cleanup(func() {
		require.NoError(b, unix.Unmount(point, unix.MNT_DETACH))
		require.NoError(b, unix.Close(fd)) // ends what waits for it
	})
	return point
}

// A daemon that is stopped, a source that is a FIFO, and one on a filesystem that
// never answers are each an error, and hide no other mount.
func TestStatusIsNotHeldUp(t *testing.T) {
	b, stopped := rootBox(t), rootBox(t)
	b.mount("--embedded")
	stopped.mount("--embedded")
	require.NoError(t, unix.Kill(stopped.pid(), unix.SIGSTOP))
	defer unix.Kill(stopped.pid(), unix.SIGCONT)
	b.await("the daemon has stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", stopped.pid()))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	require.NoError(t, unix.Mkfifo(b.path("fifo"), 0o600))
	fifo := b.fakeMount("to-fifo", fusefs.FSType, b.path("fifo"), 0)
	hung := b.fakeMount("hung", "fuse.hung", "hung", 0)
	below := b.fakeMount("to-hung", fusefs.FSType, filepath.Join(hung, "state"), 0)

	r := b.uploadfs("status")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stdout, b.point+"\n")
	require.NotContains(t, r.stdout, stopped.point+"\n")
	require.Contains(t, r.stderr, fmt.Sprintf("uploadfs: %s: open %s: not a directory\n", fifo, b.path("fifo")))
	for _, point := range []string{stopped.point, below} {
		require.Contains(t, r.stderr, fmt.Sprintf("uploadfs: %s: no answer in 5s", point))
	}
	require.Equal(t, 3, strings.Count(r.stderr, "\n"), r.stderr)
	b.refused(1, "no answer in 5s", "status", below)

	require.NoError(t, unix.Kill(stopped.pid(), unix.SIGCONT))
	stopped.ok("unmount", stopped.point)
	b.ok("unmount", b.point)
}

// A user can mount with any source. Only a process of that user is asked.
func TestOnlyTheMountsUserIsAsked(t *testing.T) {
	b := rootBox(t)
	b.mount("--embedded")
	fake := b.fakeMount("fake", fusefs.FSType, b.state, 65534)
	r := b.uploadfs("status")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stdout, b.point+"\n")
	require.Equal(t, fmt.Sprintf("uploadfs: %s: its source leads to a process of user 0, and user 65534 made the mount: its daemon was not asked\n", fake), r.stderr)
	b.refused(1, "user 65534 made the mount", "unmount", fake)
	require.Equal(t, b.point, b.status().MountPoint, "the mount is still there")

	other := newBox(t, users()[1])
	require.Equal(t, "no uploadfs mounts\n", other.ok("status"), "other users' mounts are not asked")
	b.ok("unmount", b.point)
}
