//go:build linux

package fusefs_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
)

// A program of FuzzOperations has four bytes for each operation: the operation and
// its operands. Descriptors are closed at its end, and before a remount.
const (
	opOpen = iota
	opWrite
	opAppend
	opTruncate
	opTruncateName
	opRename
	opExchange
	opLink
	opUnlink
	opStore // through a shared mapping
	opPunch
	opZero
	opExtend
	opCopyRange
	opClose
	opSync
	opRead
	opStat
	opRemount
	opCount
)

// opNames are the files of a program. One of them is in a directory of its own, one
// has a name that is held.
var opNames = []string{"a", "b", "d/c", "e.tmp"}

var opFlags = []int{
	unix.O_RDWR | unix.O_CREAT, unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND,
	unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR | unix.O_APPEND,
}

const opMax = 64 // operations of a program

// FuzzOperations runs a program in a mount and in a directory of the local disk. All
// results must be equal, and at the end the files and the Files at the API too.
// Parts are small, so that small files have many.
func FuzzOperations(f *testing.F) {
	for _, program := range [][]byte{
		{opOpen, 0, 0, 0, opWrite, 0, 0, 255, opClose, 0, 0, 0},
		{opOpen, 0, 0, 0, opWrite, 0, 100, 255, opStore, 0, 90, 200, opClose, 0, 0, 0, opStat, 0, 0, 0},
		{opOpen, 0, 0, 0, opWrite, 0, 0, 255, opOpen, 0, 1, 1, opAppend, 1, 9, 255, opPunch, 0, 10, 100, opTruncate, 0, 60, 0, opRead, 0, 0, 255},
		{opOpen, 0, 2, 0, opWrite, 0, 0, 255, opRename, 0, 1, 0, opWrite, 0, 50, 99, opClose, 0, 0, 0, opLink, 1, 2, 0, opUnlink, 1, 0, 0},
		{opOpen, 3, 0, 0, opWrite, 0, 0, 200, opClose, 0, 0, 0, opRename, 3, 0, 0, opOpen, 0, 1, 0, opAppend, 0, 1, 30},
		{opOpen, 0, 0, 0, opWrite, 0, 3, 255, opRemount, 0, 0, 0, opOpen, 0, 5, 0, opAppend, 0, 0, 70, opRemount, 0, 0, 0, opTruncateName, 0, 200, 0},
		{opOpen, 0, 0, 0, opWrite, 0, 0, 255, opOpen, 1, 0, 1, opCopyRange, 0, 1, 40, opExtend, 1, 200, 200, opZero, 1, 20, 90, opExchange, 0, 1, 0},
		{opOpen, 0, 0, 0, opWrite, 0, 0, 90, opUnlink, 0, 0, 0, opStore, 0, 0, 80, opRead, 0, 0, 90, opOpen, 0, 0, 1, opWrite, 1, 0, 9},
		{opOpen, 0, 0, 0, opExtend, 0, 0, 255, opSync, 0, 0, 0, opStore, 0, 0, 255, opStore, 0, 100, 255, opClose, 0, 0, 0, opOpen, 0, 0, 0, opStore, 0, 9, 9},
	} {
		f.Add(program)
	}
	s := newStack(quiet{f}, stackOptions{Part: 64 << 10, Names: uploader.NamePolicy{HoldFor: 10 * time.Millisecond}})
	model := f.TempDir()
	run := 0
	f.Fuzz(func(t *testing.T, program []byte) {
		s.t = quiet{t}
		defer func() { s.t = quiet{f} }()
		run++
		dir := fmt.Sprint(run)
		require.NoError(t, os.MkdirAll(filepath.Join(model, dir, "d"), 0o755))
		s.run(`mkdir -p "$1/d"`, dir)
		program = program[:min(len(program), 4*opMax)/4*4]
		for i, part := range segments(program) {
			if i > 0 {
				s.unmount()
				s.mount()
			}
			want := operate(filepath.Join(model, dir), part)
			require.Equal(t, want, operateElsewhere(t, s.path(dir), part), "segment %d", i)
		}
		for _, name := range opNames {
			want, err := os.ReadFile(filepath.Join(model, dir, name))
			if err != nil {
				continue
			}
			name = filepath.Join(dir, name)
			require.True(t, bytes.Equal(want, s.read(name)), name)
			if len(want) == 0 {
				s.eventually(name, "empty")
				continue
			}
			// Stores through a mapping show when the mapping is gone.
			require.Eventually(t, func() bool {
				id := s.attr(name, "file_id")
				return id != "" && bytes.Equal(want, s.content(id))
			}, patience, 10*time.Millisecond, "%s: %s %s", name, s.attr(name, "state"), s.attr(name, "error"))
		}
		s.run(`rm -r "$1"`, dir)
		require.NoError(t, os.RemoveAll(filepath.Join(model, dir)))
	})
}

// quiet is a testing.TB that logs nothing: a goroutine in the background may outlive
// the run of the target, and must not log to its testing.TB.
type quiet struct{ testing.TB }

func (quiet) Log(...any) {}

// segments splits a program at its remounts.
func segments(program []byte) (all [][]byte) {
	start := 0
	for i := 0; i < len(program); i += 4 {
		if program[i]%opCount == opRemount {
			all = append(all, program[start:i])
			start = i + 4
		}
	}
	return append(all, program[start:])
}

func init() {
	helpers["operate"] = func(args []string) error {
		program, err := hex.DecodeString(args[1])
		if err != nil {
			return err
		}
		out := bufio.NewWriter(os.Stdout)
		fmt.Fprint(out, operate(args[0], program))
		return out.Flush()
	}
}

// operateElsewhere is operate in another process.
func operateElsewhere(t *testing.T, dir string, program []byte) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", dir, hex.EncodeToString(program))
	cmd.Env = append(os.Environ(), "FUSEFS_TEST_HELPER=operate", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

// operate runs a program without remounts in dir. It returns what each operation
// returned and what the files hold afterwards.
func operate(dir string, program []byte) string {
	var log strings.Builder
	slots := [3]int{-1, -1, -1}
	for i := 0; i < len(program); i += 4 {
		op, a, b, c := program[i]%opCount, int(program[i+1]), int(program[i+2]), int(program[i+3])
		name := filepath.Join(dir, opNames[a%len(opNames)])
		other := filepath.Join(dir, opNames[b%len(opNames)])
		fd := slots[a%len(slots)]
		off, length := int64(b)*997, int64(c)*1009
		data := bytes.Repeat([]byte{byte(i + 1), op, byte(c)}, int(length)/3+1)[:length]
		n, err := 0, error(nil)
		switch op {
		case opOpen:
			slot := &slots[c%len(slots)]
			if *slot >= 0 {
				unix.Close(*slot)
			}
			*slot, err = unix.Open(name, opFlags[b%len(opFlags)]|unix.O_CLOEXEC, 0o644)
		case opWrite:
			n, err = unix.Pwrite(fd, data, off)
		case opAppend:
			n, err = unix.Write(fd, data)
		case opTruncate:
			err = unix.Ftruncate(fd, off)
		case opTruncateName:
			err = unix.Truncate(name, off)
		case opRename:
			err = unix.Rename(name, other)
		case opExchange:
			err = unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		case opLink:
			err = unix.Link(name, other)
		case opUnlink:
			err = unix.Unlink(name)
		case opStore:
			n, err = store(fd, off, data)
		case opPunch:
			err = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
		case opZero:
			err = unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, off, length)
		case opExtend:
			err = unix.Fallocate(fd, 0, off, length)
		case opCopyRange:
			var from, to int64 = 0, int64(c) * 997
			n, err = unix.CopyFileRange(fd, &from, slots[b%len(slots)], &to, 50_000, 0)
		case opClose:
			err = unix.Close(fd)
			slots[a%len(slots)] = -1
		case opSync:
			err = unix.Fsync(fd)
		case opRead:
			buf := make([]byte, length)
			if n, err = unix.Pread(fd, buf, off); n > 0 {
				fmt.Fprintf(&log, "%x ", sha256.Sum256(buf[:n]))
			}
		case opStat:
			var st unix.Stat_t
			if err = unix.Stat(name, &st); err == nil {
				fmt.Fprintf(&log, "size %d links %d ", st.Size, st.Nlink)
			}
		}
		fmt.Fprintf(&log, "%d: operation %d: %d %v\n", i/4, op, n, err)
	}
	for _, fd := range slots {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		fmt.Fprintf(&log, "%s %d %x %v\n", strings.TrimPrefix(name, dir), len(content), sha256.Sum256(content), err)
		return nil
	})
	fmt.Fprintln(&log, err)
	return log.String()
}

// store writes data through a mapping, as far as the file goes.
func store(fd int, off int64, data []byte) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	n := min(int64(len(data)), st.Size-off)
	if n <= 0 {
		return 0, nil
	}
	page := int64(os.Getpagesize())
	start := off / page * page
	mem, err := unix.Mmap(fd, start, int(off+n-start), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	copy(mem[off-start:], data)
	return int(n), unix.Munmap(mem)
}
