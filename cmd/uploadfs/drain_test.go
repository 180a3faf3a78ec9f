//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/mount"
	"uploadfs/uploader/state"
)

func TestUnmountDrains(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(b.T)
		server.use(b)
		b.mount("--close", "background", "--drain-timeout", testTimeout.String())
		started, release := server.block(b.T)
		b.shOK(`echo hello > "$M/a"`)
		<-started
		done := make(chan result, 1)
		cmd := b.command(binary, "unmount", b.point)
		go func() { done <- b.do(cmd) }()
		b.await("the kernel gives the mount up first", func() bool { return !b.mounted() })
		release()
		r := <-done
		require.Zero(b, r.code, r.stderr)
		require.Empty(b, r.stderr)

		b.mount()
		require.Equal(b, state.Completed, b.info("a").State)
		b.ok("unmount", b.point)
	})
}

func TestUnmountNamesWhatIsLeft(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(b.T)
		server.use(b)
		b.mount("--close", "background", "--drain-timeout", "10ms")
		started, release := server.block(b.T)
		b.shOK(`mkdir "$M/d"; echo hello > "$M/d/b
c"; echo hello > "$M/a"`)
		<-started
		<-started
		r := b.uploadfs("unmount", b.point)
		require.Equal(b, 1, r.code)
		require.Equal(b, "uploadfs: not uploaded yet: a\nuploadfs: not uploaded yet: d/b\\nc\n"+
			"uploadfs: 2 files are not uploaded yet; mount again to go on with them\n", r.stderr)
		require.Zero(b, b.pid())
		log := b.shOK("cat state/uploadfs.log")
		require.Contains(b, log, `path="d/b\nc"`)
		require.Contains(b, log, "files=2")

		release()
		b.mount()
		b.ok("wait", filepath.Join(b.point, "a"), filepath.Join(b.point, "d/b\nc"))
		b.ok("unmount", b.point)
	})
}

// A busy mount stays as it was.
func TestUnmountOfABusyMount(t *testing.T) {
	eachUser(t, func(b *box) {
		b.mount("--embedded")
		holder := b.command("sh", "-c", `cd "$0" && echo in && read x`, b.point)
		in, err := holder.StdinPipe()
		require.NoError(b, err)
		out, err := holder.StdoutPipe()
		require.NoError(b, err)
		require.NoError(b, holder.Start())
		_, err = out.Read(make([]byte, 3))
		require.NoError(b, err)

		b.refused(1, "is busy", "unmount", b.point)
		b.shOK(`echo still > "$M/a"`)
		require.Equal(b, state.Completed, b.info("a").State)
		require.False(b, b.status().Ending)

		in.Close()
		holder.Wait()
		b.ok("unmount", b.point)
	})
}

// A daemon whose state directory was moved away cannot be asked to end.
func TestUnmountWithoutTheStateDirectory(t *testing.T) {
	eachUser(t, func(b *box) {
		b.mount("--embedded")
		b.shOK(`mv state elsewhere`)
		b.refused(1, "is alive and cannot be reached in its state directory", "unmount", b.point)
		b.shOK(`mv elsewhere state`)
		b.ok("unmount", b.point)
	})
}

// foreground starts a mount that stays, and returns when it is ready.
func (b *box) foreground(args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	socket := filepath.Join(b.dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(b, err)
	defer l.Close()
	defer os.Remove(socket)
	require.NoError(b, os.Chmod(socket, 0o777))
	cmd = b.command(binary, b.mountArgs(append(args, "--foreground")...)...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket)
	stderr = new(bytes.Buffer)
	cmd.Stderr = stderr
	require.NoError(b, cmd.Start())
	b.cleanup()
	require.NoError(b, l.SetReadDeadline(time.Now().Add(testTimeout)))
	buf := make([]byte, 1000)
	n, err := l.Read(buf)
	require.NoError(b, err, "%s", stderr)
	require.Contains(b, string(buf[:n]), "READY=1")
	return cmd, stderr
}

func TestSignalDrains(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			eachUser(t, func(b *box) {
				server := newAPI(b.T)
				server.use(b)
				cmd, stderr := b.foreground("--close", "background", "--drain-timeout", testTimeout.String())
				started, release := server.block(b.T)
				b.shOK(`echo hello > "$M/a"`)
				<-started
				require.NoError(b, cmd.Process.Signal(sig))
				b.await("no new work is taken", func() bool { return !b.mounted() })
				release()
				require.NoError(b, cmd.Wait(), "%s", stderr)
				require.Contains(b, stderr.String(), "msg=completed")
			})
		})
	}
}

// A second signal ends the draining, and nothing is lost by it. What is open does
// not keep the daemon.
func TestSecondSignalEndsNow(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(b.T)
		server.use(b)
		cmd, stderr := b.foreground("--close", "background", "--drain-timeout", "1h")
		started, release := server.block(b.T)
		reader := b.command("sh", "-c", `echo hello > "$0/a"; exec 3< "$0/a"; echo in; read x`, b.point)
		in, err := reader.StdinPipe()
		require.NoError(b, err)
		out, err := reader.StdoutPipe()
		require.NoError(b, err)
		require.NoError(b, reader.Start())
		_, err = out.Read(make([]byte, 3))
		require.NoError(b, err)
		<-started

		require.NoError(b, cmd.Process.Signal(unix.SIGTERM))
		b.await("no new work is taken", func() bool { return !b.mounted() })
		require.NoError(b, cmd.Process.Signal(unix.SIGTERM))
		require.Error(b, cmd.Wait(), "%s", stderr)
		require.Equal(b, 1, cmd.ProcessState.ExitCode(), "%s", stderr)
		require.Contains(b, stderr.String(), "uploadfs: not uploaded yet: a\n")
		in.Close()
		reader.Wait()

		release()
		b.mount()
		b.ok("wait", filepath.Join(b.point, "a"))
		b.ok("unmount", b.point)
	})
}

// The daemon drains and ends, whichever program unmounts.
func TestUnmountedByOthers(t *testing.T) {
	eachUser(t, func(b *box) {
		b.mount("--embedded")
		b.shOK(`echo hello > "$M/a"`)
		pid := b.pid()
		if b.user.uid == 0 {
			b.shOK(`umount "$M"`)
		} else {
			b.shOK(`fusermount3 -u "$M"`)
		}
		awaitEnd(b, pid)
		require.Zero(b, b.pid())
		require.NoFileExists(b, filepath.Join(b.state, "embedded.json"))
	})
}

// defaultState makes the state directory the mount point's own, by which a mount is
// found that only drains.
func (b *box) defaultState() {
	b.state = filepath.Join(b.dir, ".local", "state", "uploadfs", mount.Escape(b.point))
	if b.user.uid == 0 {
		b.state = filepath.Join("/var/lib/uploadfs", mount.Escape(b.point))
		b.Cleanup(func() { os.RemoveAll(b.state) })
	}
}

// A mount that is gone but still drains is found by its own state directory.
func TestDrainingIsSeen(t *testing.T) {
	b := newBox(t, users()[len(users())-1])
	b.defaultState()
	server := newAPI(t)
	server.use(b)
	r := b.uploadfs("mount", "--close", "background", "--drain-timeout", testTimeout.String(), b.point)
	require.Zero(b, r.code, r.stderr)
	b.cleanup()
	started, release := server.block(t)
	b.shOK(`echo hello > "$M/a"`)
	<-started
	done := make(chan result, 2)
	for range 2 {
		cmd := b.command(binary, "unmount", b.point)
		go func() { done <- b.do(cmd) }()
	}
	b.await("the kernel gives the mount up first", func() bool { return !b.mounted() })
	b.await("status says that the mount ends", func() bool { return b.status().Ending })
	require.Contains(b, b.ok("status", b.point), "uploading what is pending")
	b.refused(1, "in use by process", "mount", b.point)
	release()
	for range 2 {
		require.Zero(b, (<-done).code, "both wait for the same end")
	}
}

// With --watch the report comes again until a signal ends the command.
func TestStatusWatch(t *testing.T) {
	b := newBox(t, users()[0])
	b.mount("--embedded")
	cmd := b.command(binary, "status", "--json", "--watch", b.point)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	dec := json.NewDecoder(out)
	for range 2 {
		var rep mount.Report
		require.NoError(b, dec.Decode(&rep))
		require.Equal(b, b.point, rep.MountPoint)
	}
	require.NoError(b, cmd.Process.Signal(unix.SIGINT))
	require.NoError(b, cmd.Wait())
	b.ok("unmount", b.point)
}

// What a writer has written is in the tree when a signal ends the daemon, even
// if the writer neither closes nor syncs.
func TestSignalKeepsWhatIsWritten(t *testing.T) {
	b := newBox(t, users()[0])
	cmd, stderr := b.foreground("--embedded", "--drain-timeout", "10ms")
	f, err := os.Create(filepath.Join(b.point, "a"))
	require.NoError(t, err)
	defer f.Close()
	content := strings.Repeat("x", 1000000)
	_, err = f.WriteString(content)
	require.NoError(t, err)

	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	require.Error(t, cmd.Wait(), "%s", stderr)
	require.Contains(t, stderr.String(), "uploadfs: not uploaded yet: a\n")
	kept, err := os.ReadFile(filepath.Join(b.state, "tree", "a"))
	require.NoError(t, err)
	require.True(t, string(kept) == content, "%d bytes, not those written", len(kept))
	f.Close()

	b.mount("--embedded")
	require.Equal(t, state.Interrupted, b.info("a").State)
	r := b.uploadfs("unmount", b.point)
	require.Zero(t, r.code)
	require.Equal(t, "uploadfs: interrupted before this mount, kept: a\n", r.stderr)
}
