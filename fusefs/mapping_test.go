//go:build linux

package fusefs_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/uploader/api/local"
)

// mapScript maps files as C programs do: Python's own mmap keeps a descriptor.
const mapScript = `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
size = 3 << 20
def map(fd, prot=3, flags=1):
    at = libc.mmap(None, size, prot, flags, fd, 0)
    assert at != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
    return at
def store(at, off, data): ctypes.memmove(at + off, data, len(data))
def unmap(at): assert libc.munmap(at, size) == 0
def say(what):
    print(what, flush=True)
    sys.stdin.readline()
def new(name="f"):
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, size)
    return fd
`

// closedMapped maps a file, which its argument names, and closes it.
const closedMapped = mapScript + `
os.chdir("/")
fd = new(sys.argv[1])
at = map(fd)
os.close(fd)
say("closed")
`

// mapped is a file of 3 MiB with these bytes at the offset of each.
func mapped(at map[int]string) []byte {
	b := make([]byte, 3*mib)
	for off, text := range at {
		copy(b[off:], text)
	}
	return b
}

// refuseAll fails the test's API for every call that would declare an Upload.
func (s *stack) refuseAll() {
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpCreate {
			return &local.Fault{Status: 403, Message: "not now"}
		}
		return nil
	})
}

// TestMappedAtClose: a program maps a file, closes it and goes on storing. That makes one
// File, when the mapping has gone; until then close says nothing and waits for nothing.
func TestMappedAtClose(t *testing.T) {
	want := mapped(map[int]string{0: "before", 1 << 20: "after", 2 << 20: "later"})
	for name, c := range map[string]struct{ close, end string }{
		"unmapped": {`os.close(fd)`, `unmap(at); say("unmapped")`},
		"exit":     {`os.close(fd)`, ``},
		"failure":  {`os.close(fd)`, `os._exit(3)`},
		"duplicates": {`
again = os.dup(fd)
os.close(fd)
os.close(again)`, ``},
		"two mappings": {`
second = map(fd)
os.close(fd)
unmap(second)`, ``},
		"another descriptor that cannot map": {`
os.close(fd)
fd = os.open("f", os.O_WRONLY)
os.pwrite(fd, b"before", 0)
os.close(fd)`, ``},
		"an exec": {`os.close(fd)`, `os.execvp("sleep", ["sleep", "1000"])`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			s.refuseAll() // or a close would fail
			p := s.start(mapScript + `
fd = new()
at = map(fd)
store(at, 0, b"before")
` + c.close + `
say("closed")
store(at, 1 << 20, b"after")
say("stored")
store(at, 2 << 20, b"later")
` + c.end)
			p.expect("closed")
			require.Equal(t, "writing", s.attr("f", "state"))
			p.send("go on")
			p.expect("stored")
			require.Equal(t, "writing", s.attr("f", "state"))
			require.Zero(t, s.API.Stats().UploadsCreated)
			s.API.SetIntercept(nil)
			p.send("go on")
			s.eventually("f", "completed")
			s.completed("f", want)
			require.Len(t, s.API.Files(), 1)
			require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
		})
	}
}

// TestMappingsThatDoNotCount: a program that can store nothing to the file waits for its
// File at the close.
func TestMappingsThatDoNotCount(t *testing.T) {
	for name, how := range map[string]string{
		"private":     `map(fd, 3, 2)`,
		"to read":     `map(fd, 1, 1)`,
		"gone":        `unmap(map(fd))`,
		"other files": `map(new("g"))`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			p := s.start(mapScript + `
fd = new()
` + how + `
os.pwrite(fd, b"text", 5)
os.close(fd)
say("closed")
`)
			p.expect("closed")
			s.completed("f", mapped(map[int]string{5: "text"}))
			p.send("go on")
			require.NoError(t, p.wait())
		})
	}
}

// TestKilledWhileMapped kills a program that has closed a file and maps it. What it stored
// since is half of something; without a store the content is that of its close.
func TestKilledWhileMapped(t *testing.T) {
	for _, c := range []struct{ name, before, stores, state string }{
		{"new file, stores", `fd = new()`, `store(at, 1 << 20, b"half")`, "interrupted"},
		{"new file, stores to the same page", `fd = new()`, `store(at, 0, b"half")`, "interrupted"},
		{"new file, no store", `fd = new()`, ``, "completed"},
		{"completed file, stores", `
os.close(new())
fd = os.open("f", os.O_RDWR)`, `store(at, 1 << 20, b"half")`, "interrupted"},
	} {
		for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
			t.Run(c.name+", "+signal.String(), func(t *testing.T) {
				s := newStack(t, stackOptions{})
				p := s.start(mapScript + c.before + `
at = map(fd)
` + map[bool]string{true: `store(at, 0, b"close")`}[!strings.HasPrefix(c.name, "completed")] + `
os.close(fd)
say("closed")
` + c.stores + `
say("stored")
`)
				p.expect("closed")
				p.send("go on")
				p.expect("stored")
				require.NoError(t, p.cmd.Process.Signal(signal))
				require.Error(t, p.wait())
				s.eventually("f", c.state)
				if c.state == "completed" {
					s.completed("f", mapped(map[int]string{0: "close"}))
					return
				}
				require.Contains(t, s.attr("f", "error"), "mapped was killed")
				require.LessOrEqual(t, len(s.API.Files()), map[bool]int{true: 1}[strings.HasPrefix(c.name, "completed")])
				require.NoError(t, s.Up.Retry("f"))
				s.eventually("f", "completed")
				s.sameAsFile("f")
			})
		}
	}
}

// TestCompletedWhileMapped: a close of what has not changed commits nothing, and what is
// stored after it makes the next File.
func TestCompletedWhileMapped(t *testing.T) {
	s := newStack(t, stackOptions{})
	p := s.start(mapScript + `
os.close(new())
fd = os.open("f", os.O_RDWR)
at = map(fd)
os.close(fd)
say("closed")
store(at, 7, b"text")
say("stored")
unmap(at)
say("unmapped")
`)
	p.expect("closed")
	require.Equal(t, "completed", s.attr("f", "state"))
	p.send("go on")
	p.expect("stored")
	p.send("go on")
	p.expect("unmapped")
	want := mapped(map[int]string{7: "text"})
	require.Eventually(t, func() bool {
		ids := s.ids()
		return len(ids) == 2 && bytes.Equal(s.content(ids[1]), want)
	}, patience, 5*time.Millisecond)
	s.eventually("f", "completed")
	s.completed("f", want)
}

// TestUnmountWhileMapped: a mount is in use while a program maps a file that it has closed.
func TestUnmountWhileMapped(t *testing.T) {
	s := newStack(t, stackOptions{})
	p := s.start(closedMapped+`
store(at, 5, b"text")
unmap(at)
say("unmapped")
`, s.path("f"))
	p.expect("closed")
	require.ErrorIs(t, s.Mount.Unmount(), unix.EBUSY)
	p.send("go on")
	p.expect("unmapped")
	s.eventually("f", "completed")
	s.completed("f", mapped(map[int]string{5: "text"}))
}

// TestMappedByManyThreads: the main thread of the program has ended.
func TestMappedWithoutMainThread(t *testing.T) {
	s := newStack(t, stackOptions{})
	p := s.start(mapScript + `
import threading
def work():
    fd = new()
    at = map(fd)
    os.close(fd)
    say("closed")
    store(at, 5, b"text")
    os._exit(0)
threading.Thread(target=work).start()
libc.pthread_exit(None)
`)
	p.expect("closed")
	require.Equal(t, "writing", s.attr("f", "state"))
	p.send("go on")
	require.NoError(t, p.wait())
	s.eventually("f", "completed")
	s.completed("f", mapped(map[int]string{5: "text"}))
	require.Len(t, s.API.Files(), 1)
}

// TestSqliteWAL: a database lives in the mount, with a write-ahead log and a shared-memory
// index beside it. Its File is the whole database, and there is one.
func TestSqliteWAL(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Fatal("install python3")
	}
	s := newStack(t, stackOptions{})
	p := s.start(`
import sqlite3, sys
def connect():
    c = sqlite3.connect("db.sqlite", isolation_level=None)
    assert c.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    c.execute("PRAGMA mmap_size=67108864")
    return c
a, b = connect(), connect()
a.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, data BLOB)")
for i in range(50):
    (a, b)[i % 2].execute("INSERT INTO t (data) VALUES (randomblob(20000))")
assert a.execute("SELECT count(*) FROM t").fetchone() == (50,)
a.execute("PRAGMA wal_checkpoint")
for i in range(50): a.execute("UPDATE t SET data = randomblob(20000) WHERE n = ?", (i,))
a.close()
print("one is closed", flush=True)
sys.stdin.readline()
b.execute("INSERT INTO t (data) VALUES ('last')")
b.close()
print("closed", flush=True)
sys.stdin.readline()
`)
	p.expect("one is closed")
	require.Equal(t, "writing", s.attr("db.sqlite", "state"))
	require.Zero(t, s.API.Stats().UploadsCreated)
	p.send("go on")
	p.expect("closed")
	s.completed("db.sqlite", s.read("db.sqlite"))
	require.Equal(t, []string{"db.sqlite"}, s.fileNames(), "neither log nor index is sent")
	p.send("go on")
	require.NoError(t, p.wait())
	require.Equal(t, "ok 51", s.run(`python3 - <<'END'
import sqlite3
c = sqlite3.connect("file:db.sqlite?mode=ro", uri=True)
print(c.execute("PRAGMA integrity_check").fetchone()[0], c.execute("SELECT count(*) FROM t").fetchone()[0])
END`))
}

// TestAbortedWhileMapped: the kernel gives a mount up while a program maps a file that it
// has closed. The daemon does not wait for that program.
func TestAbortedWhileMapped(t *testing.T) {
	if !isRoot() {
		t.Skip("only root can mount fusectl")
	}
	s := newStack(t, stackOptions{})
	p := s.start(closedMapped, s.path("f"))
	p.expect("closed")
	control := t.TempDir()
	require.NoError(t, unix.Mount("none", control, "fusectl", 0, ""))
	_, minor, _ := strings.Cut(s.Mount.Mounted().Device, ":")
	err := os.WriteFile(join(control, minor, "abort"), []byte("1"), 0)
	require.NoError(t, unix.Unmount(control, 0))
	require.NoError(t, err)
	s.Mount.Wait()
	snapshot, err := s.Up.Snapshot()
	require.NoError(t, err)
	require.Len(t, snapshot.Files, 1)
	require.Equal(t, "interrupted", string(snapshot.Files[0].State))
	require.Zero(t, s.API.Stats().UploadsCreated)
	require.NoError(t, fusefs.Unmount(s.Mount.Mounted(), true))
	require.NoError(t, p.cmd.Process.Kill())
	p.wait()
}
