//go:build linux

package main

import (
	"bytes"
	"fmt"
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
)

// A service of systemd finds its key among its credentials, reports that it is ready,
// and asks for more time as long as uploads are under way at its end.
func TestService(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	socket, credentials := b.path("notify"), b.path("credentials")
	require.NoError(t, os.Mkdir(credentials, 0o700))
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.SetReadDeadline(time.Now().Add(testTimeout)))
	told := func(what string) {
		t.Helper()
		buf := make([]byte, 1000)
		for {
			n, err := l.Read(buf)
			require.NoError(t, err, "waiting for %s", what)
			if strings.Contains("\n"+string(buf[:n])+"\n", "\n"+what+"\n") {
				return
			}
		}
	}
	b.env = append(b.env, "NOTIFY_SOCKET="+socket, "CREDENTIALS_DIRECTORY="+credentials, "OPENAI_BASE_URL="+server.url)

	// The units have an empty line in the place of a missing key.
	require.NoError(t, os.WriteFile(filepath.Join(credentials, "api-key"), []byte("\n"), 0o400))
	b.refused(1, "no API key", b.mountArgs("--foreground")...)
	require.NoError(t, os.Remove(filepath.Join(credentials, "api-key")))
	require.NoError(t, os.WriteFile(filepath.Join(credentials, "api-key"), []byte(testKey), 0o400))

	cmd := b.command(binary, b.mountArgs("--foreground", "--close", "background", "--drain-timeout", testTimeout.String())...)
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	require.NoError(t, cmd.Start())
	b.cleanup()
	told("READY=1")
	started, release := server.block(t)
	b.shOK(`echo hello > "$M/a"`)
	<-started
	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	told("STOPPING=1")
	told(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", mount.StopExtension.Microseconds()))
	release()
	require.NoError(t, cmd.Wait(), "%s", stderr)
	require.Len(t, server.Files(), 1)
}

// systemd has nothing to say against the units.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	b := newBox(t, users()[0])
	b.env = append(b.env, "XDG_RUNTIME_DIR="+b.dir)
	for _, manager := range []string{"system", "user"} {
		text, err := os.ReadFile(filepath.Join("../../deploy/systemd", manager, "uploadfs@.service"))
		require.NoError(t, err)
		require.Contains(t, string(text), "ExecStart=/usr/bin/uploadfs ")
		unit := b.path("uploadfs@.service")
		require.NoError(t, os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/bin/uploadfs"), []byte(binary)), 0o644))
		r := b.do(b.command(analyze, "verify", "--"+manager, "--man=no", unit))
		require.Zero(t, r.code, r.stderr)
		require.Empty(t, r.stderr)
	}
}
