//go:build linux

package fusefs_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMainThreadHasEnded: the process goes on without its main thread, whose table in
// /proc is empty.
func TestMainThreadHasEnded(t *testing.T) {
	for _, c := range []struct{ name, script, state, want string }{
		{"another descriptor", `
os.write(a, b"one "); b = os.dup(a); os.close(a); state("writing")
os.write(b, b"two"); os.close(b); state("completed")`, "completed", "one two"},
		{"another open", `
b = os.open("f", os.O_WRONLY | os.O_APPEND); os.write(a, b"one "); os.close(a); state("writing")
os.write(b, b"two"); os.close(b); state("completed")`, "completed", "one two"},
		{"a child closes", `
os.write(a, b"one ")
if os.fork() == 0: os.write(a, b"two"); os.close(a); os._exit(0)
os.wait(); state("writing"); os.close(a); state("completed")`, "completed", "one two"},
		{"a helper is terminated", `
os.write(a, b"one two"); p = subprocess.Popen(["sleep", "100"], stdout=a); p.terminate(); p.wait()
state("writing"); os.close(a); state("completed")`, "completed", "one two"},
		{"exit without close", `os.write(a, b"one two"); os._exit(0)`, "completed", "one two"},
		{"killed", `os.write(a, b"one "); os.kill(os.getpid(), signal.SIGKILL)`, "interrupted", ""},
		{"terminated", `os.write(a, b"one "); os.kill(os.getpid(), signal.SIGTERM)`, "interrupted", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			p := s.start(`
import ctypes, os, platform, signal, subprocess, sys, threading
def state(want):
    got = os.getxattr("f", "user.uploadfs.state").decode()
    if got != want: print(got, "and not", want, flush=True); os._exit(1)
def go_on():
    while not b"State:\tZ" in open("/proc/self/status", "rb").read(): pass
    print("ended", flush=True)` + indented(c.script) + `
    print("done", flush=True); os._exit(0)
a = os.open("f", os.O_WRONLY | os.O_CREAT)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
`)
			p.expect("ended")
			if c.state == "completed" && c.name != "exit without close" {
				p.expect("done")
			}
			_ = p.wait() // of such a process it is the main thread's status
			s.eventually("f", c.state)
			if c.state == "completed" {
				s.completed("f", []byte(c.want))
				require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
			}
		})
	}
}

// indented is a Python block inside a function.
func indented(script string) string {
	return "\n    " + strings.ReplaceAll(strings.TrimSpace(script), "\n", "\n    ")
}
