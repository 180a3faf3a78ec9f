//go:build linux

package fusefs_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// helperScript begins the programs of TestHelperEndedBySignal. run starts a program
// with the file as its output, end ends it by a signal, fork does both without exec.
const helperScript = `
import multiprocessing, os, resource, signal, subprocess, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
f = open("f", "wb", 0); f.write(b"opener ")
def run(before=""):
    p = subprocess.Popen(["bash", "-c", before + "printf 'helper '; echo >&2; read line"], stdin=subprocess.PIPE, stdout=f, stderr=subprocess.PIPE)
    if not before: p.stderr.read(1)
    return p
def go_on(p): p.stdin.write(b"\n"); p.stdin.flush(); p.stderr.read(1)
def end(p, sig): p.send_signal(sig); assert p.wait() == -sig
def fork(sig):
    if os.fork() == 0: f.write(b"helper "); os.kill(os.getpid(), sig)
    os.wait()
def eio(call):
    try: call()
    except OSError as e: assert e.errno == 5, e
    else: assert False, "no error"
`

// TestHelperEndedBySignal: a process that inherited the descriptor is ended by a
// signal. It has left half a file only where it is a program that crashed, and
// where the opener's close does not decide.
func TestHelperEndedBySignal(t *testing.T) {
	for _, c := range []struct{ name, script, state, want string }{
		{"terminated", `end(run(), signal.SIGTERM); f.close()`, "completed", "opener helper "},
		{"interrupted", `end(run(), signal.SIGINT); f.close()`, "completed", "opener helper "},
		{"hangs up", `end(run(), signal.SIGHUP); f.close()`, "completed", "opener helper "},
		{"breaks a pipe", `end(run(), signal.SIGPIPE); f.write(b"more"); f.close()`, "completed", "opener helper more"},
		{"forked and killed", `fork(signal.SIGKILL); f.close()`, "completed", "opener helper "},
		{"forked and aborted", `fork(signal.SIGABRT); f.close()`, "completed", "opener helper "},
		{"a pool", `
with multiprocessing.get_context("fork").Pool(2) as pool: pool.map(str, range(3))
f.write(b"more"); f.close()`, "completed", "opener more"},
		{"killed", `end(run(), signal.SIGKILL); eio(f.close)`, "interrupted", ""},
		{"crashed", `end(run(), signal.SIGSEGV); eio(f.close)`, "interrupted", ""},
		{"aborted", `end(run(), signal.SIGABRT); eio(f.close)`, "interrupted", ""},
		{"over a limit", `end(run(), signal.SIGXCPU); eio(f.close)`, "interrupted", ""},
		{"crashed, and more is written", `end(run(), signal.SIGSEGV); f.write(b"more"); eio(f.close)`, "interrupted", ""},
		{"crashed, and more is written by another open", `
g = open("f", "ab", 0); end(run(), signal.SIGSEGV); f.write(b"more"); f.close(); g.write(b"more"); eio(g.close)`, "interrupted", ""},
		{"crashed, and the opener exits", `end(run(), signal.SIGSEGV); f.write(b"more"); os._exit(0)`, "interrupted", ""},
		{"crashed, and written anew", `
end(run(), signal.SIGSEGV); f.truncate(0); f.seek(0); f.write(b"anew"); f.close()`, "completed", "anew"},
		{"crashed, and opened anew", `
end(run(), signal.SIGSEGV); g = open("f", "wb", 0); g.write(b"anew"); g.close(); f.close()`, "completed", "anew"},
		{"crashed, and replaced", `
end(run(), signal.SIGSEGV)
with open("g", "wb", 0) as g: g.write(b"another")
os.rename("g", "f"); f.write(b"more"); f.close()`, "completed", "another"},
		{"crashed, and opened again later", `
end(run(), signal.SIGSEGV); eio(f.close)
with open("f", "ab", 0) as g: g.write(b"more")`, "completed", "opener helper more"},
		{"crashed, and released after it was opened again", `
import fcntl, threading, time
end(run(), signal.SIGSEGV)
lock = open("f"); fcntl.flock(lock, fcntl.LOCK_EX)
waits = threading.Thread(target=fcntl.flock, args=(f.fileno(), fcntl.LOCK_EX)); waits.start()
mark = ":%d " % os.fstat(f.fileno()).st_ino
while not any("-> FLOCK" in line and mark in line for line in open("/proc/locks")): time.sleep(0.001)
eio(f.close)
g = open("f", "ab", 0); g.write(b"more"); os.fsync(g.fileno())
lock.close(); waits.join()
for _ in range(200): # RELEASE of f comes in this time
    if os.getxattr("f", "user.uploadfs.state") != b"writing": break
    time.sleep(0.001)
g.close()`, "completed", "opener helper more"},
		{"terminated after the opener has closed", `p = run("read line; "); f.close(); go_on(p); end(p, signal.SIGTERM)`, "interrupted", ""},
		{"killed after the opener has closed", `p = run("read line; "); f.close(); go_on(p); end(p, signal.SIGKILL)`, "interrupted", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			p := s.start(helperScript + c.script + "\nprint('done', flush=True)\n")
			if c.name != "crashed, and the opener exits" {
				p.expect("done")
			}
			require.NoError(t, p.wait())
			s.eventually("f", c.state)
			if c.state == "completed" {
				s.completed("f", []byte(c.want))
				return
			}
			require.NotEmpty(t, s.attr("f", "error"))
			require.Empty(t, s.attr("f", "file_id"))
		})
	}
}

// TestHelperOfAShell: a job of a shell that inherited the shell's descriptor.
func TestHelperOfAShell(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`exec 3>f; echo a >&3; sleep 100 & kill $!; wait $! || :; exec 3>&-`)
	s.completed("f", []byte("a\n"))
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
}

// TestHelperClosesLast: where the opener has closed its own copy, the helper's close
// waits for the File.
func TestHelperClosesLast(t *testing.T) {
	s := newStack(t, stackOptions{})
	p := s.start(`
import os, subprocess
f = open("f", "wb", 0)
p = subprocess.Popen(["sh", "-c", "read go; printf x; exec >&-; getfattr --only-values -n user.uploadfs.state f >&2"], stdin=subprocess.PIPE, stdout=f, stderr=subprocess.PIPE)
f.close()
print(p.communicate(b"go\n")[1].decode(), flush=True)
`)
	p.expect("completed")
	require.NoError(t, p.wait())
	s.completed("f", []byte("x"))
}
