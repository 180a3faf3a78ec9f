package procfs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.15.0": true, "6.18.44-x": true, "7.0": true, "6.14.9": false, "5.19": false, "": false, "x": false,
	} {
		require.Equal(t, want, atLeast(release, 6, 15), release)
	}
}

// TestPIDFDTellsHowAProcessEnded needs no permission on the process: it is asked for
// by the ID alone.
func TestPIDFDTellsHowAProcessEnded(t *testing.T) {
	if !TellsExitStatus() {
		t.Skip("needs Linux 6.15")
	}
	for script, want := range map[string]syscall.WaitStatus{
		"read line; exit 0":                     0,
		"read line; exit 3":                     3 << 8,
		"read line; kill -TERM $$":              syscall.WaitStatus(syscall.SIGTERM),
		"read line; kill -KILL $$":              syscall.WaitStatus(syscall.SIGKILL),
		"ulimit -c 0; read line; kill -SEGV $$": syscall.WaitStatus(syscall.SIGSEGV),
	} {
		cmd := exec.Command("bash", "-c", script)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		p, err := OpenPIDFD(cmd.Process.Pid)
		require.NoError(t, err)
		pid, err := p.PID()
		require.NoError(t, err)
		require.Equal(t, cmd.Process.Pid, pid)
		exited, err := p.Exited()
		require.NoError(t, err)
		require.False(t, exited, script)

		stop := errors.New("not reaped")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(stop)
		_, err = p.WaitExit(ctx)
		require.ErrorIs(t, err, stop)

		require.NoError(t, in.Close())
		ended, err := p.ExitsWithin(10 * time.Second)
		require.NoError(t, err)
		require.True(t, ended)
		_, err = p.WaitExit(ctx)
		require.ErrorIs(t, err, stop, "its parent has not waited for it")

		_ = cmd.Wait() // the status is what the test is about
		status, err := p.WaitExit(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, status&^0x80, script) // 0x80 is a core dump
		exited, err = p.Exited()
		require.NoError(t, err)
		require.True(t, exited)
		_, err = p.PID()
		require.Error(t, err)
		require.NoError(t, p.Close())
	}
	_, err := OpenPIDFD(0)
	require.ErrorIs(t, err, os.ErrNotExist)
}
