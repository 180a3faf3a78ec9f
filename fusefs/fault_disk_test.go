//go:build linux

package fusefs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/uploader/api/local"
)

const diskSize = 24 * mib

// newFullDisk returns a stack whose state directory is on a small disk of its
// own. Only root can make one; for others ok is false.
func newFullDisk(t *testing.T, path fusefs.WritePath) (s *stack, ok bool) {
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m")
	if !isRoot() {
		require.ErrorIs(t, err, unix.EPERM)
		return nil, false
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	return newStack(t, stackOptions{State: dir, Path: path, Stall: patience}), true
}

// fill uses up the disk, until empty is called.
func (s *stack) fill() (empty func()) {
	s.t.Helper()
	name := filepath.Join(s.State, "filler")
	f, err := os.Create(name)
	require.NoError(s.t, err)
	block := make([]byte, 1<<16)
	for err == nil {
		_, err = f.Write(block)
		if err != nil && len(block) > 1 {
			block, err = block[:len(block)/2], nil
		}
	}
	require.ErrorIs(s.t, err, unix.ENOSPC)
	require.NoError(s.t, f.Close())
	return func() { require.NoError(s.t, os.Remove(name)) }
}

// TestFullDisk fills the disk by a copy that is too large for it. In write-back the
// daemon sees the write fail. In passthrough only the program does, and the daemon
// sees that the disk is full.
func TestFullDisk(t *testing.T) {
	for path, c := range map[fusefs.WritePath]struct{ state, reason string }{
		fusefs.Writeback:   {"failed", "no space left on device"},
		fusefs.Passthrough: {"interrupted", "the disk is full"},
	} {
		t.Run(string(path), func(t *testing.T) {
			s, ok := newFullDisk(t, path)
			if !ok {
				return
			}
			small, content := source(t, 2*partSize)
			large, _ := source(t, 2*diskSize)
			s.run(`cp "$1" before`, small)
			held, open := blockCalls(s.API, local.OpComplete)
			pending := s.copy(small, "pending")
			<-held

			out, err := s.sh(`cp "$1" large`, large)
			require.Error(t, err)
			require.Contains(t, out, "No space left on device")
			require.Equal(t, c.state, s.attr("large", "state"))
			require.Contains(t, s.attr("large", "error"), c.reason)

			s.completed("before", content)
			require.True(t, bytes.Equal(content, s.read("before")))
			open()
			require.NoError(t, <-pending, "uploads that are under way need no disk")
			s.one(t, "pending", content)

			// The journal may have had no space for either of them.
			s.unmount()
			s.mount()
			require.Contains(t, []string{"failed", "interrupted"}, s.attr("large", "state"))
			s.eventually("pending", "completed")
			s.one(t, "pending", content)
			s.run(`cp "$1" large; cp "$1" after`, small)
			s.one(t, "large", content)
			s.one(t, "after", content)
			require.Len(t, s.API.Files(), 4, "half a file is not published")
		})
	}
}

// TestFailedWriteIsNotForgotten: a WRITE fails after the program's write succeeded,
// and later WRITEs find space. The hole is not published, however clean the close
// looks.
func TestFailedWriteIsNotForgotten(t *testing.T) {
	s, ok := newFullDisk(t, fusefs.Writeback)
	if !ok {
		return
	}
	s.run(`printf earlier > f`)
	earlier := s.attr("f", "file_id")
	w := s.start(`
import os, sys
part = 1 << 20
f = os.open("f", os.O_RDWR)
print("open", flush=True)
sys.stdin.readline()
try:
    os.pwrite(f, b"A" * part, 0)
    os.fsync(f)
except OSError as e:
    print(e.strerror, flush=True)
sys.stdin.readline()
os.pwrite(f, b"B" * part, part)
try:
    os.fsync(f)
    os.close(f)
except OSError as e:
    print(e.strerror, flush=True)
sys.stdin.readline()
f = os.open("f", os.O_RDWR)
os.pwrite(f, b"C" * part, 0)
os.close(f)
`)
	w.expect("open")
	empty := s.fill()
	w.send("write")
	w.expect("No space left on device")
	empty()
	w.send("write the rest")
	w.expect("No space left on device")
	require.Equal(t, "failed", s.attr("f", "state"))
	require.Len(t, s.API.Files(), 1, "half a file is not published")
	require.NotEqual(t, earlier, s.attr("f", "file_id"))

	w.send("write what is missing")
	require.NoError(t, w.wait())
	s.completed("f", append(bytes.Repeat([]byte("C"), mib), bytes.Repeat([]byte("B"), mib)...))
}

// TestFullDiskUnderTheJournal leaves no space for a single record.
func TestFullDiskUnderTheJournal(t *testing.T) {
	s, ok := newFullDisk(t, fusefs.Writeback)
	if !ok {
		return
	}
	small, content := source(t, partSize)
	s.run(`cp "$1" before`, small)
	w := s.start(`
import errno, os, sys
part = 1 << 20
f = os.open("f", os.O_RDWR | os.O_CREAT)
print("open", flush=True)
sys.stdin.readline()
for i in range(10000): # the journal has some space set aside
    try:
        os.close(os.open("g", os.O_RDWR | os.O_CREAT))
    except OSError as e:
        print(e.strerror, flush=True)
        break
try:
    os.pwrite(f, b"A" * part, 0)
    os.fsync(f)
except OSError as e:
    print(e.strerror, flush=True)
sys.stdin.readline()
os.pwrite(f, b"B" * part, part)
try:
    os.close(f)
except OSError as e:
    print(e.strerror, flush=True)
`)
	w.expect("open")
	empty := s.fill()
	w.send("write")
	w.expect("No space left on device")
	w.expect("No space left on device")
	s.completed("before", content)
	out, err := s.sh(`cp "$1" new`, small)
	require.Error(t, err)
	require.Contains(t, out, "No space left on device")

	empty()
	w.send("write the rest")
	w.expect("No space left on device")
	require.NoError(t, w.wait())
	require.Equal(t, "failed", s.attr("f", "state"))
	require.Contains(t, s.attr("f", "error"), "bytes 0 to 1048576 are missing")
	require.Len(t, s.API.Files(), 1)
	s.run(`cp "$1" new; cp "$1" f`, small)
	s.one(t, "new", content)
	s.one(t, "f", content)
}
