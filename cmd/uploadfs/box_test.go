//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs/procfs"
	"uploadfs/mount"
	"uploadfs/uploader"
)

// testTimeout bounds every wait of these tests. A slow machine must not reach it.
const testTimeout = 5 * time.Minute

// user is whom commands run as.
type user struct {
	name string
	uid  int
}

// users are root and nobody where root runs the tests, else the current user.
func users() []user {
	if os.Geteuid() != 0 {
		return []user{{"self", os.Geteuid()}}
	}
	return []user{{"root", 0}, {"nobody", 65534}}
}

// eachUser runs a test as every user.
func eachUser(t *testing.T, test func(b *box)) {
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) { test(newBox(t, u)) })
	}
}

// box is one user with a directory of their own, in which there is an empty
// directory to mount on.
type box struct {
	*testing.T
	user  user
	dir   string
	point string
	state string
	env   []string
}

func newBox(t *testing.T, u user) *box {
	dir, err := os.MkdirTemp(base, "box-")
	require.NoError(t, err)
	b := &box{T: t, user: u, dir: dir, point: filepath.Join(dir, "up"), state: filepath.Join(dir, "state")}
	require.NoError(t, os.Mkdir(b.point, 0o755))
	for _, d := range []string{b.dir, b.point} {
		require.NoError(t, os.Chown(d, u.uid, u.uid))
	}
	b.env = append(os.Environ(), "HOME="+b.dir, "XDG_STATE_HOME=")
	t.Cleanup(func() { os.RemoveAll(dir) })
	return b
}

// result is what a command printed, and its exit code.
type result struct {
	stdout, stderr string
	code           int
}

// command prepares a command of the user's. It is killed when the test takes too
// long.
func (b *box) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	b.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = b.env, b.dir
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(b.user.uid), Gid: uint32(b.user.uid)}}
	}
	return cmd
}

func (b *box) do(cmd *exec.Cmd) result {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		require.NoError(b, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// uploadfs runs the command under test.
func (b *box) uploadfs(args ...string) result { return b.do(b.command(binary, args...)) }

// ok runs it and wants success.
func (b *box) ok(args ...string) string {
	r := b.uploadfs(args...)
	require.Zero(b, r.code, "uploadfs %s: %s", strings.Join(args, " "), r.stderr)
	return r.stdout
}

// refused runs it and wants one line of error with this text, and this exit code.
func (b *box) refused(code int, text string, args ...string) {
	b.Helper()
	r := b.uploadfs(args...)
	require.Contains(b, r.stderr, text)
	require.Equal(b, code, r.code, r.stderr)
	require.Equal(b, 1, strings.Count(r.stderr, "\n"), r.stderr)
	require.True(b, strings.HasPrefix(r.stderr, "uploadfs: "), r.stderr)
	require.Empty(b, r.stdout)
}

// sh runs a shell command, in which $M is the mount point.
func (b *box) sh(script string) result {
	cmd := b.command("sh", "-c", script)
	cmd.Env = append(cmd.Env, "M="+b.point)
	return b.do(cmd)
}

func (b *box) shOK(script string) string {
	r := b.sh(script)
	require.Zero(b, r.code, "%s: %s%s", script, r.stdout, r.stderr)
	return r.stdout
}

// mount mounts in the background on b.point, with b.state as state directory,
// and makes sure that it ends with the test.
func (b *box) mount(args ...string) {
	b.Helper()
	r := b.uploadfs(b.mountArgs(args...)...)
	require.Zero(b, r.code, r.stderr)
	require.Empty(b, r.stderr)
	b.cleanup()
}

func (b *box) mountArgs(args ...string) []string {
	return append(append([]string{"mount", "--state-dir", b.state}, args...), b.point)
}

// cleanup ends the daemon and the mount when the test ends, whatever they do.
func (b *box) cleanup() {
	b.Cleanup(func() {
		if b.Failed() {
			log, _ := os.ReadFile(filepath.Join(b.state, "uploadfs.log"))
			b.Logf("log of the mount:\n%s", log)
		}
		if pid := b.pid(); pid > 0 {
			unix.Kill(pid, unix.SIGKILL)
			awaitEnd(b, pid)
		}
		if b.mounted() {
			require.Zero(b, b.do(b.command("fusermount3", "-u", "-z", b.point)).code)
		}
	})
}

// pid is the daemon's, as the state directory's lock gives it; 0 if it has ended.
func (b *box) pid() int {
	text, err := os.ReadFile(filepath.Join(b.state, "lock"))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	require.NoError(b, err)
	first, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// awaitEnd returns when the process is gone, or only its exit code is left.
func awaitEnd(b *box, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	require.NoError(b, err)
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(testTimeout.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		require.NoError(b, err)
		require.Equal(b, 1, n, "process %d does not end", pid)
		return
	}
}

// await polls until something is so.
func (b *box) await(what string, so func() bool) {
	b.Helper()
	require.Eventually(b, so, testTimeout, 20*time.Millisecond, what)
}

// info is the status of a file on the mount.
func (b *box) info(name string) uploader.Status {
	var st uploader.Status
	require.NoError(b, json.Unmarshal([]byte(b.ok("info", "--json", filepath.Join(b.point, name))), &st))
	return st
}

// status is the report of the mount.
func (b *box) status() mount.Report {
	var rep mount.Report
	require.NoError(b, json.Unmarshal([]byte(b.ok("status", "--json", b.point)), &rep))
	return rep
}

// mounted reports whether anything is mounted on b.point.
func (b *box) mounted() bool {
	list, err := procfs.Mounts()
	require.NoError(b, err)
	for _, m := range list {
		if m.Point == b.point {
			return true
		}
	}
	return false
}
