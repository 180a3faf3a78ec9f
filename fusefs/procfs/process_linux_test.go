package procfs

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	// Fields 4 to 8, the flags, 10 to 19, the threads, 21, the start, 23 to 51, the exit code.
	line := "77 (a) b (c) S 1 9 9 9 9 4 " + strings.Repeat("0 ", 10) + "3 0 4242 " + strings.Repeat("0 ", 29) + "256"
	st, ok := parseStat(line)
	require.True(t, ok)
	require.Equal(t, Stat{State: 'S', Flags: pfExiting, Threads: 3, Start: 4242, ExitCode: 256}, st)
	require.True(t, st.Exiting())

	for _, bad := range []string{"", "77 (a", "77 (a) S 1 2 3"} {
		_, ok := parseStat(bad)
		require.False(t, ok, bad)
	}
}

func TestProcessHasOneLife(t *testing.T) {
	me, err := ProcessOf(syscall.Gettid())
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), me.PID, "a thread's process")
	require.True(t, me.Alive())
	me.Start--
	require.False(t, me.Alive(), "another process had the number before")

	in, out, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	defer out.Close()
	cmd := exec.Command("cat")
	cmd.Stdin = in
	require.NoError(t, cmd.Start())
	child, err := ProcessOf(cmd.Process.Pid)
	require.NoError(t, err)
	require.True(t, child.Alive())
	all, err := Processes()
	require.NoError(t, err)
	require.Contains(t, all, child.PID)
	require.NoError(t, out.Close())
	require.NoError(t, cmd.Wait())
	require.False(t, child.Alive())

	_, err = ProcessOf(0)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestStatusTellsPendingSignals(t *testing.T) {
	for _, c := range []struct {
		st                Status
		kill, stop, other bool
	}{
		{Status{}, false, false, false},
		{Status{Pending: SignalSet(syscall.SIGKILL)}, true, true, false},
		{Status{SharedPending: SignalSet(syscall.SIGKILL), Blocked: ^Signals(0)}, true, true, false},
		{Status{SharedPending: SignalSet(syscall.SIGTERM)}, false, true, true},
		{Status{Pending: SignalSet(syscall.SIGINT), Blocked: SignalSet(syscall.SIGINT)}, false, false, false},
		{Status{Pending: SignalSet(syscall.SIGHUP), Ignored: SignalSet(syscall.SIGHUP)}, false, false, false},
		{Status{Pending: SignalSet(syscall.SIGURG, syscall.SIGUSR1, syscall.SIGCONT)}, false, false, true},
	} {
		require.Equal(t, c.kill, c.st.KillPending(), c.st)
		require.Equal(t, c.stop, c.st.StopPending(), c.st)
		require.Equal(t, c.other, c.st.OtherPending(), c.st)
	}

	st, err := ReadStatus(syscall.Gettid())
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), st.PID)
	require.False(t, st.InExec)
}

// TestMainThreadThatHasEnded looks at a process whose main thread called pthread_exit.
func TestMainThreadThatHasEnded(t *testing.T) {
	cmd := exec.Command("python3", "-c", `
import ctypes, platform, sys, threading
def wait():
    while not b"State:\tZ" in open("/proc/self/status", "rb").read(): pass
    print("ended", flush=True); sys.stdin.readline()
threading.Thread(target=wait).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
`)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line := make([]byte, 6)
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)
	p, err := ProcessOf(cmd.Process.Pid)
	require.NoError(t, err)
	require.True(t, p.Alive())
	all, err := Descriptors(p.PID)
	require.NoError(t, err)
	require.NotEmpty(t, all)
	require.NoError(t, in.Close())
	_, _ = io.Copy(io.Discard, out) // ends with the process
	_ = cmd.Wait()                  // its status is that of the main thread
	require.False(t, p.Alive())
}

// TestEachDescriptorEndsEarly: a large table is read to the first match only.
func TestEachDescriptorEndsEarly(t *testing.T) {
	calls := 0
	require.NoError(t, EachDescriptor(os.Getpid(), func(Descriptor) bool { calls++; return false }))
	require.Equal(t, 1, calls)
	require.ErrorIs(t, EachDescriptor(1<<30, nil), os.ErrNotExist)
}

func TestParseDescriptor(t *testing.T) {
	const fdinfo = "pos:\t12\nflags:\t0102001\nmnt_id:\t23\nino:\t18446744073709551615\nlock:\t1: POSIX\n"
	want := Descriptor{FD: 7, Pos: 12, Flags: 0o102001, MountID: 23, Ino: 1<<64 - 1}
	require.Equal(t, want, parseDescriptor(7, []byte(fdinfo)))
	require.Equal(t, Descriptor{FD: 7, Pos: 12}, parseDescriptor(7, []byte(fdinfo[:15])), "cut off in the middle of a line")
}

func TestDescriptorsOfThisProcess(t *testing.T) {
	name := t.TempDir() + "/f"
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("12345")
	require.NoError(t, err)
	fi, err := f.Stat()
	require.NoError(t, err)

	all, err := Descriptors(os.Getpid())
	require.NoError(t, err)
	var found Descriptor
	for _, d := range all {
		if d.FD == int(f.Fd()) {
			found = d
		}
	}
	require.Equal(t, fi.Sys().(*syscall.Stat_t).Ino, found.Ino)
	require.Equal(t, int64(5), found.Pos)
	require.True(t, found.Writable())
	require.NotZero(t, found.Flags&syscall.O_APPEND)
	devices, err := MountDevices(os.Getpid())
	require.NoError(t, err)
	require.Contains(t, devices, found.MountID)

	target, err := DescriptorTarget(os.Getpid(), found.FD)
	require.NoError(t, err)
	require.Equal(t, name, target)

	in, err := os.Open(name)
	require.NoError(t, err)
	d, err := ReadDescriptor(os.Getpid(), int(in.Fd()))
	require.NoError(t, err)
	require.False(t, d.Writable())
	require.NoError(t, in.Close())
	_, err = ReadDescriptor(os.Getpid(), d.FD)
	require.ErrorIs(t, err, os.ErrNotExist)
}
