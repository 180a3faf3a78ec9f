//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
	"uploadfs/mount"
)

// A mount is known by what it is: its path may change, and another mount may come
// to lie on it.

// within moves the box's mount point into a directory, which can be renamed.
func (b *box) within(name string) (dir string) {
	dir = b.path(name)
	require.NoError(b, os.Mkdir(dir, 0o755))
	require.NoError(b, os.Chown(dir, b.user.uid, b.user.uid))
	point := filepath.Join(dir, "up")
	require.NoError(b, os.Rename(b.point, point))
	b.point = point
	return dir
}

// ours lists the points of the mounts below the box.
func (b *box) ours() (points []string) {
	list, err := procfs.Mounts()
	require.NoError(b, err)
	for _, m := range list {
		if m.Type == fusefs.FSType && strings.HasPrefix(m.Point, b.dir+"/") {
			points = append(points, m.Point)
		}
	}
	return points
}

func TestUnmountAfterARenameAbove(t *testing.T) {
	eachUser(t, func(b *box) {
		dir := b.within("old")
		b.mount("--embedded")
		pid := b.pid()
		require.NoError(b, os.Rename(dir, b.path("new")))
		b.point = b.path("new/up")
		b.shOK(`echo hello > "$M/a"`)
		require.Equal(b, b.point, b.status().MountPoint)
		b.ok("wait", filepath.Join(b.point, "a"))
		b.ok("unmount", b.point)
		awaitEnd(b, pid)
		require.Empty(b, b.ours())
	})
}

func TestSignalAfterARenameAbove(t *testing.T) {
	eachUser(t, func(b *box) {
		for _, path := range b.writePaths() {
			dir := b.within("old-" + path)
			cmd, stderr := b.foreground("--embedded", "--drain-timeout", "10ms", "--write-path", path)
			moved := b.path("new-" + path)
			require.NoError(b, os.Rename(dir, moved))
			b.point = filepath.Join(moved, "up")
			writer := b.command("sh", "-c", `echo hello > "$0/a"; exec 3<> "$0/a"; echo in; read x`, b.point)
			in, err := writer.StdinPipe()
			require.NoError(b, err)
			out, err := writer.StdoutPipe()
			require.NoError(b, err)
			require.NoError(b, writer.Start())
			_, err = out.Read(make([]byte, 3))
			require.NoError(b, err)

			require.NoError(b, cmd.Process.Signal(unix.SIGTERM))
			require.NoError(b, cmd.Wait(), "%s", stderr)
			require.Empty(b, b.ours(), "a dead mount: %s", stderr)
			in.Close()
			writer.Wait()
			require.NoError(b, os.Rename(b.point, b.path("up")))
			b.point = b.path("up")
		}
	})
}

// writePaths are those that the box's user can have.
func (b *box) writePaths() []string {
	if b.user.uid == 0 {
		return []string{"passthrough", "writeback"}
	}
	return []string{"writeback"}
}

// cover mounts a tmpfs on the box's mount. uncover takes it away.
func (b *box) cover() (uncover func()) {
	require.NoError(b, unix.Mount("cover", b.point, "tmpfs", 0, ""))
	covered := true
	uncover = func() {
		if covered {
			covered = false
			require.NoError(b, unix.Unmount(b.point, 0))
		}
	}
	b.Cleanup(uncover)
	return uncover
}

// topType is the type of what lies on top of the box's mount point.
func (b *box) topType() (fstype string) {
	list, err := procfs.Mounts()
	require.NoError(b, err)
	for _, m := range list {
		if m.Point == b.point {
			fstype = m.Type
		}
	}
	return fstype
}

func TestUnmountOfACoveredMount(t *testing.T) {
	b := rootBox(t)
	b.mount("--embedded")
	uncover := b.cover()
	b.refused(1, `covered by another mount (tmpfs from "cover"): unmount that first`, "unmount", b.point)
	require.Equal(t, "tmpfs", b.topType())
	uncover()
	b.shOK(`echo hello > "$M/a"`)
	b.ok("unmount", b.point)
}

// The mount that a signal ends stays beneath what covers it, and what was written to
// it is kept.
func TestSignalUnderACover(t *testing.T) {
	for _, path := range []string{"passthrough", "writeback"} {
		t.Run(path, func(t *testing.T) {
			b := rootBox(t)
			cmd, stderr := b.foreground("--embedded", "--drain-timeout", "10ms", "--write-path", path)
			f, err := os.Create(filepath.Join(b.point, "a"))
			require.NoError(t, err)
			defer f.Close()
			content := strings.Repeat("x", 1000000)
			_, err = f.WriteString(content)
			require.NoError(t, err)
			uncover := b.cover()
			require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
			require.Error(t, cmd.Wait())
			require.Equal(t, "tmpfs", b.topType())
			require.Contains(t, stderr.String(), "covered by another mount")
			require.NotContains(t, stderr.String(), "incomplete")
			kept, err := os.ReadFile(filepath.Join(b.state, "tree", "a"))
			require.NoError(t, err)
			require.True(t, string(kept) == content, "%d bytes, not those written", len(kept))
			f.Close()
			uncover()
			b.ok("unmount", b.point)
			require.Empty(t, b.ours())
		})
	}
}

// rootBox is a box of root's, who alone can mount a tmpfs.
func rootBox(t *testing.T) *box {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	return newBox(t, users()[0])
}

// A dead mount and a living one may have the same state directory. Calls about the
// dead one do not reach the other's daemon.
func TestADeadMountIsNotTheLivingOne(t *testing.T) {
	eachUser(t, func(b *box) {
		dead := b.point
		b.mount("--embedded")
		pid := b.pid()
		require.NoError(b, unix.Kill(pid, unix.SIGKILL))
		awaitEnd(b, pid)
		b.point = b.path("other")
		require.NoError(b, os.Mkdir(b.point, 0o755))
		require.NoError(b, os.Chown(b.point, b.user.uid, b.user.uid))
		b.mount("--embedded")
		b.refused(1, mount.ErrNoDaemon.Error(), "status", dead)
		r := b.uploadfs("unmount", dead)
		require.Zero(b, r.code, r.stderr)
		require.Contains(b, r.stderr, "the daemon was gone")
		require.Equal(b, []string{b.point}, b.ours())
		b.shOK(`echo hello > "$M/a"`)
		b.ok("unmount", b.point)
	})
}

// A signal loses nothing on a machine that holds only this program: what was written
// to an open file, and stored through a mapping, is in the tree.
func TestSignalNeedsNoOtherProgram(t *testing.T) {
	eachUser(t, func(b *box) {
		for _, path := range b.writePaths() {
			b.env = []string{"PATH=/nonexistent", "HOME=" + b.dir, "GORACE=" + os.Getenv("GORACE")}
			b.state = b.path("state-" + path)
			cmd, stderr := b.foreground("--embedded", "--drain-timeout", "10ms", "--write-path", path)
			b.env = os.Environ()
			writer := b.command("/proc/self/exe")
			writer.Env = append(writer.Env, writerEnv+"="+b.point)
			in, err := writer.StdinPipe()
			require.NoError(b, err)
			out, err := writer.StdoutPipe()
			require.NoError(b, err)
			require.NoError(b, writer.Start())
			_, err = out.Read(make([]byte, 3))
			require.NoError(b, err)

			require.NoError(b, cmd.Process.Signal(unix.SIGTERM))
			require.Error(b, cmd.Wait(), "%s", stderr)
			require.NotContains(b, stderr.String(), "incomplete")
			for name, letter := range map[string]string{"written": "x", "mapped": "y"} {
				kept, err := os.ReadFile(filepath.Join(b.state, "tree", name))
				require.NoError(b, err)
				require.True(b, string(kept) == strings.Repeat(letter, 1<<20), "%s in %s: %d bytes, not those written", name, path, len(kept))
			}
			in.Close()
			writer.Wait()
			require.Empty(b, b.ours())
		}
	})
}

// writerEnv makes the test binary a program that writes to a file in the directory
// named, stores through a mapping of another, and ends with its standard input. It
// neither closes nor syncs.
const writerEnv = "UPLOADFS_TEST_WRITER"

func writeAndWait(dir string) error {
	const n = 1 << 20
	written, err := os.Create(filepath.Join(dir, "written"))
	if err != nil {
		return err
	}
	mapped, err := os.Create(filepath.Join(dir, "mapped"))
	if err != nil {
		return err
	}
	if _, err := written.Write(bytes.Repeat([]byte("x"), n)); err != nil {
		return err
	}
	if err := mapped.Truncate(n); err != nil {
		return err
	}
	m, err := unix.Mmap(int(mapped.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m, bytes.Repeat([]byte("y"), n))
	fmt.Println("in")
	_, err = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(written)
	runtime.KeepAlive(mapped)
	return err
}
