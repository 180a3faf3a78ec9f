package fusefs_test

import (
	"bytes"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/api/local"
)

// TestProcessesShareADescriptor: content is sent once, when the last duplicate of
// the descriptor is closed. The last close in the process that opened it returns
// the result.
func TestProcessesShareADescriptor(t *testing.T) {
	s := newStack(t, stackOptions{})
	for _, c := range []struct {
		name, script string
		later        bool // the last close returns no result to a program
	}{
		{"dup", `
a = os.open("f", os.O_WRONLY | os.O_CREAT); b = os.dup(a)
os.write(a, b"one "); os.close(a); state("writing")
os.write(b, b"two"); os.close(b); state("completed")
`, false},
		{"dup2 over the last one", `
a = os.open("f", os.O_WRONLY | os.O_CREAT)
os.write(a, b"one two"); os.dup2(os.open("/dev/null", os.O_RDONLY), a); state("completed")
`, false},
		{"two opens", `
a = os.open("f", os.O_WRONLY | os.O_CREAT); b = os.open("f", os.O_WRONLY | os.O_APPEND)
os.write(a, b"one "); os.close(a); state("writing")
os.write(b, b"two"); os.close(b); state("completed")
`, false},
		{"close-on-exec", `
a = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC); os.write(a, b"one two")
os.execvp("echo", ["echo", "done"])
`, true},
		{"close-on-exec in a child", `
a = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC); os.write(a, b"one ")
if os.fork() == 0: os.execvp("true", ["true"])
os.wait(); state("writing")
os.posix_spawn("/bin/true", ["true"], {}); os.wait(); state("writing")
os.write(a, b"two"); os.close(a); state("completed")
`, false},
		{"fork, the child ends first", `
a = os.open("f", os.O_WRONLY | os.O_CREAT); os.write(a, b"one ")
if os.fork() == 0: os.write(a, b"two"); os._exit(0)
os.wait(); state("writing"); os.close(a); state("completed")
`, false},
		{"fork, the child fails", `
a = os.open("f", os.O_WRONLY | os.O_CREAT); os.write(a, b"one ")
if os.fork() == 0: os.write(a, b"two"); os._exit(1)
os.wait(); os.close(a); state("completed")
`, false},
		{"inherited by a program", `
with open("f", "wb") as f:
    subprocess.run(["echo", "-n", "one "], stdout=f, check=True)
    subprocess.run(["echo", "-n", "two"], stdout=f, check=True)
state("completed")
`, false},
		{"inherited, the opener closes first", `
f = open("f", "wb"); p = subprocess.Popen(["sh", "-c", "read go; printf 'one two'"], stdin=subprocess.PIPE, stdout=f)
f.close(); p.communicate(b"go\n")
`, true},
		{"passed over a socket", `
here, there = socket.socketpair()
if os.fork() == 0:
    _, fds, _, _ = socket.recv_fds(there, 1, 1)
    os.write(fds[0], b"two"); os.close(fds[0]); there.send(b"x"); os._exit(0)
a = os.open("f", os.O_WRONLY | os.O_CREAT); os.write(a, b"one ")
socket.send_fds(here, [b"x"], [a]); here.recv(1); state("writing")
os.close(a); state("completed"); os.wait()
`, false},
		{"given away over a socket", `
here, there = socket.socketpair()
if os.fork() == 0:
    _, fds, _, _ = socket.recv_fds(there, 1, 1); here.close(); there.recv(1)
    os.write(fds[0], b"one two"); os.close(fds[0]); os._exit(0)
a = os.open("f", os.O_WRONLY | os.O_CREAT)
socket.send_fds(here, [b"x"], [a]); os.close(a); here.send(b"x"); os.wait()
`, true},
		{"a thread closes", `
a = os.open("f", os.O_WRONLY | os.O_CREAT); os.write(a, b"one two")
t = threading.Thread(target=os.close, args=(a,)); t.start(); t.join(); state("completed")
`, false},
		{"opened by a thread that has ended", `
l = []
t = threading.Thread(target=lambda: l.append(os.open("f", os.O_WRONLY | os.O_CREAT))); t.start(); t.join()
os.write(l[0], b"one two"); os.close(l[0]); state("completed")
`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			s.run(`rm -f f`)
			before := s.API.Stats().UploadsCreated
			p := s.start(`
import os, socket, subprocess, sys, threading
def state(want):
    got = os.getxattr("f", "user.uploadfs.state").decode()
    if got != want: print(got, "and not", want); sys.exit(1)
` + c.script + `
print("done", flush=True)
`)
			p.expect("done")
			require.NoError(t, p.wait())
			if c.later {
				s.eventually("f", "completed")
			}
			s.completed("f", []byte("one two"))
			require.Equal(t, before+1, s.API.Stats().UploadsCreated)
			require.Zero(t, s.pending())
		})
	}
}

// TestProcessesInAnotherPIDNamespace: processes of containers. Only root is sure to
// be allowed to make one.
func TestProcessesInAnotherPIDNamespace(t *testing.T) {
	unshare := "unshare -pf"
	if !isRoot() {
		unshare = "" // the same, in this one
	}
	s := newStack(t, stackOptions{})
	src, want := source(t, 9*partSize/8)
	s.run(unshare+` cp "$1" f; [[ $(getfattr --only-values -n user.uploadfs.state f) = completed ]]`, src)
	s.completed("f", want)
	s.run(unshare + ` bash -c '{ echo a; ls -d .; echo b; } > g'`)
	s.completed("g", []byte("a\n.\nb\n"))
	require.Equal(t, int64(2), s.API.Stats().UploadsCreated)
	_, err := s.sh(unshare+` bash -c '(exec 3> h; cat "$1" >&3; kill -9 $BASHPID); exit 1' bash "$1"`, src)
	require.Error(t, err)
	s.eventually("h", "interrupted")
	require.Equal(t, int64(2), s.API.Stats().FilesCreated)
}

// TestProcessesKilledBesideOthers: a killed writer leaves half a file, unless another
// process goes on with it.
func TestProcessesKilledBesideOthers(t *testing.T) {
	s := newStack(t, stackOptions{})
	p := s.start(`
import os, sys
a = os.open("f", os.O_WRONLY | os.O_CREAT); os.write(a, b"parent ")
child = os.fork()
if child == 0: os.write(a, b"child "); os.kill(os.getpid(), 9)
os.wait(); print("killed", flush=True); sys.stdin.readline()
os.write(a, b"parent"); os.close(a); print("closed", flush=True)
`)
	p.expect("killed")
	require.Contains(t, []string{"writing", "interrupted"}, s.attr("f", "state"))
	require.Zero(t, s.API.Stats().FilesCreated)
	p.send("go on")
	p.expect("closed")
	s.completed("f", []byte("parent child parent"))
	require.NoError(t, p.wait())

	for _, script := range []string{
		`(exec 3> g; cat "$1" >&3; kill -9 $BASHPID)`,
		`python3 -c '
import os, sys, threading
g = open("g", "wb", 0); g.write(open(sys.argv[1], "rb").read())
threading.Thread(target=lambda: os.kill(os.getpid(), 9)).start()
g.write(b"x" * 100); threading.Event().wait()' "$1"`,
		`mkfifo p; cat "$1" p > g & exec 3> p; until [[ -s g ]]; do :; done; kill -9 $!; wait $!`,
	} {
		src, want := source(t, 5*partSize/2)
		_, err := s.sh(script, src)
		require.Error(t, err)
		s.eventually("g", "interrupted")
		require.True(t, bytes.HasPrefix(s.read("g"), want[:1]))
		s.run(`rm -f g p`)
	}
	require.Equal(t, int64(1), s.API.Stats().FilesCreated)
}

// TestProcessesKeyboardInterrupt is Ctrl-C for a program with a handler: its close
// ends with EINTR, and the upload goes on.
func TestProcessesKeyboardInterrupt(t *testing.T) {
	s := newStack(t, stackOptions{})
	reached, open := blockCalls(s.API, local.OpComplete)
	p := s.start(`
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
f = os.open("f", os.O_WRONLY | os.O_CREAT)
os.write(f, b"content")
try: os.close(f)
except KeyboardInterrupt: print("interrupted", flush=True)
`)
	<-reached
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	p.expect("interrupted")
	require.NoError(t, p.wait())
	require.Equal(t, "uploading", s.attr("f", "state"))
	open()
	s.eventually("f", "completed")
	s.completed("f", []byte("content"))
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
}

func init() { helpers["stores"] = storesHelper }

// TestProcessesMappingOutlivesItsDescriptor: what a mapping changes after the close
// is sent when the mapping is gone, with and without msync.
func TestProcessesMappingOutlivesItsDescriptor(t *testing.T) {
	for _, how := range []string{"msync", "munmap", "exit"} {
		t.Run(how, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			s.run(`head -c 1M /dev/zero | tr '\0' - > f`)
			helper(t, "stores", s.path("f"), how)
			want := bytes.Repeat([]byte("-"), mib)
			copy(want, "first")
			copy(want[5000:], "second")
			require.Eventually(t, func() bool {
				id := s.attr("f", "file_id")
				return id != "" && bytes.Equal(want, s.content(id))
			}, patience, 20*time.Millisecond)
			s.completed("f", want)
			require.True(t, bytes.Equal(want, s.read("f")))
			require.LessOrEqual(t, s.API.Stats().UploadsCreated, int64(3), "the first content, at the close, at the end")
		})
	}
}

// storesHelper stores to a file through a mapping, before and after it closes the
// file.
func storesHelper(args []string) error {
	mem, err := storeAcrossClose(args[0], mib)
	if err != nil {
		return err
	}
	switch args[1] {
	case "msync":
		if err := unix.Msync(mem, unix.MS_SYNC); err != nil {
			return err
		}
	case "exit":
		return nil
	}
	return unix.Munmap(mem)
}
