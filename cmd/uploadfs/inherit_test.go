//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

// What a mount takes over from the process that starts it: descriptors, the reader
// of its log, and a key that can be read only once.

// A lock that the caller holds ends with the caller, not with the mount.
func TestDaemonInheritsNoDescriptor(t *testing.T) {
	eachUser(t, func(b *box) {
		open := func() *os.File {
			f, err := os.OpenFile(b.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
			require.NoError(b, err)
			b.Cleanup(func() { f.Close() })
			return f
		}
		lock := open()
		require.NoError(b, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
		r, w, err := os.Pipe()
		require.NoError(b, err)
		defer r.Close()
		cmd := b.command(binary, b.mountArgs("--embedded")...)
		cmd.ExtraFiles = []*os.File{w, w, lock, w} // as exec 3>&1 5>lock … in a shell
		result := b.do(cmd)
		b.cleanup()
		require.Zero(b, result.code, result.stderr)
		require.NoError(b, errorsOf(lock.Close(), w.Close()))
		require.NoError(b, syscall.Flock(int(open().Fd()), syscall.LOCK_EX|syscall.LOCK_NB), "the mount has the lock")
		require.NoError(b, r.SetReadDeadline(time.Now().Add(testTimeout)))
		rest, err := io.ReadAll(r)
		require.NoError(b, err, "the pipe has ended")
		require.Empty(b, rest)
		b.ok("unmount", b.point)
	})
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// `mount -f 2>&1 | head -1` goes on when head has ended.
func TestMountOutlivesTheReaderOfItsLog(t *testing.T) {
	eachUser(t, func(b *box) {
		r, w, err := os.Pipe()
		require.NoError(b, err)
		cmd := b.command(binary, b.mountArgs("--embedded", "--foreground", "--drain-timeout", "10ms")...)
		cmd.Stdout, cmd.Stderr = w, w
		require.NoError(b, cmd.Start())
		b.cleanup()
		w.Close()
		line := ""
		for lines := bufio.NewReader(r); !strings.Contains(line, "msg=mounted"); {
			line, err = lines.ReadString('\n')
			require.NoError(b, err)
		}
		require.NoError(b, r.Close())
		for i := range 3 { // each logs a line
			b.shOK(fmt.Sprintf(`echo hello > "$M/a%d"`, i))
		}
		b.shOK(`exec 3> "$M/open"; echo hello >&3; kill -TERM ` + fmt.Sprint(cmd.Process.Pid) + `; while grep -q " $M " /proc/self/mountinfo; do :; done`)
		require.Error(b, cmd.Wait())
		require.Equal(b, 1, cmd.ProcessState.ExitCode(), "it names what is left, and a signal does not end it: %s", cmd.ProcessState)
	})
}

// reject answers the next n requests with 401.
func (a *testAPI) reject(n int64) {
	var left atomic.Int64
	left.Store(n)
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage == local.StageHead && left.Add(-1) >= 0 {
			return &local.Fault{Status: 401, Message: "No."}
		}
		return nil
	})
}

// A key that comes from a pipe is read once, and never again.
func TestKeyFromAPipe(t *testing.T) {
	eachUser(t, func(b *box) {
		a := newAPI(b.T)
		b.env = append(b.env, "OPENAI_BASE_URL="+a.url, "B="+binary, "K="+testKey, "M="+b.point, "S="+b.state)
		bash := func(script string) result { return b.do(b.command("bash", "-c", script)) }
		b.write("key", testKey+"\n")
		require.NoError(b, unix.Mkfifo(b.path("fifo"), 0o600))
		require.NoError(b, os.Chown(b.path("fifo"), b.user.uid, b.user.uid))
		for name, file := range map[string]string{
			"substituted":  `<(echo "$K")`,
			"stdin pipe":   `/dev/stdin < <(echo "$K")`,
			"stdin file":   `/dev/stdin < key`,
			"a descriptor": `/dev/fd/7 7< key`,
			"a FIFO":       `fifo & echo "$K" > fifo; wait $!`,
		} {
			b.Run(name, func(t *testing.T) {
				c := *b
				c.T = t
				r := bash(`"$B" mount --state-dir "$S" "$M" --api-key-file ` + file)
				c.cleanup()
				require.Zero(t, r.code, r.stderr)
				c.noKey()
				c.shOK(`echo hello > "$M/a"`)
				a.reject(1)
				c.shOK(`echo changed > "$M/a"`)
				require.Equal(t, state.Failed, c.info("a").State, "a 401 is final: there is nothing to read again")
				a.SetIntercept(nil)
				c.shOK(`rm "$M/a"`)
				c.ok("unmount", c.point)

				b.write("f", name)
				r = bash(`"$B" put --quiet --state-dir put f --api-key-file ` + file)
				require.Zero(t, r.code, r.stderr)
				require.True(t, strings.HasPrefix(r.stdout, "file-"), r.stdout)
			})
		}
		r := bash(`"$B" mount --state-dir "$S" "$M" --api-key-file <(:)`)
		require.Equal(b, 1, r.code)
		require.Regexp(b, `^uploadfs: API key file: /dev/fd/\d+ is empty: write the API key into it\n$`, r.stderr)
		b.refused(1, "has more than 65536 bytes", b.mountArgs("--api-key-file", "/dev/zero")...)
	})
}

// noKey looks for the key where other processes could see it.
func (b *box) noKey() {
	b.Helper()
	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(b.pid()), name))
		require.NoError(b, err)
		text = bytes.ReplaceAll(text, []byte("\x00K="+testKey), nil) // the test's own variable
		require.NotContains(b, string(text), testKey)
	}
}

// A key file that a pipe has replaced is an error, and not waited for.
func TestKeyFileThatBecomesAPipe(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	b.env = append(b.env, "OPENAI_BASE_URL="+a.url)
	b.mount("--api-key-file", b.write("key", testKey))
	require.NoError(t, os.Remove(b.path("key")))
	require.NoError(t, unix.Mkfifo(b.path("key"), 0o600))
	a.reject(1)
	b.shOK(`echo hello > "$M/a"`)
	require.Contains(t, b.info("a").Error, "is not a regular file any more")
	a.SetIntercept(nil)
	b.shOK(`rm "$M/a"`)
	b.ok("unmount", b.point)
}
