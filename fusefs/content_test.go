//go:build linux

package fusefs_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

func TestPosixAppendFromTwoProcesses(t *testing.T) {
	m := newMount(t)
	f := join(m.dir, "log")
	(*user)(nil).must(t, fmt.Sprintf(`
		for who in a b; do
			( exec 3>>%s; i=0; while [ $i -lt 500 ]; do echo $who line >&3; i=$((i+1)); done ) &
		done; wait`, f))
	lines := strings.Split(strings.TrimSpace(read(t, join(m.tree, "log"))), "\n")
	require.Len(t, lines, 1000)
	for _, l := range lines {
		require.Contains(t, []string{"a line", "b line"}, l)
	}
}

func TestPosixWriteOnlyOpenOfPartOfAPage(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	write(t, name, strings.Repeat("x", 10_000))
	dropCaches(t, m)
	for _, mode := range []os.FileMode{0o644, 0o200} {
		require.NoError(t, os.Chmod(name, mode))
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("yyy"), 5000)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.EqualValues(t, mode, lstat(t, join(m.tree, "f")).Mode&0o7777)
	}
	require.NoError(t, os.Chmod(name, 0o600))
	require.Equal(t, strings.Repeat("x", 5000)+"yyy"+strings.Repeat("x", 4997), read(t, join(m.tree, "f")))
}

// dropCaches drops the kernel's pages of the mount, which a new open would keep.
func dropCaches(t *testing.T, m *testMount) {
	t.Helper()
	f, err := os.Open(join(m.dir, "f"))
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	require.NoError(t, f.Close())
}

func TestPosixTruncate(t *testing.T) {
	m := newMount(t)
	name, back := join(m.dir, "f"), join(m.tree, "f")
	write(t, name, "0123456789")

	require.NoError(t, os.Truncate(name, 4)) // without a descriptor
	require.Equal(t, "0123", read(t, back))
	write(t, name, "") // O_TRUNC
	require.Equal(t, "", read(t, back))

	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteString("dirty pages")
	require.NoError(t, err)
	require.NoError(t, f.Truncate(5))
	require.NoError(t, f.Truncate(8))
	require.NoError(t, f.Close())
	require.Equal(t, "dirty\x00\x00\x00", read(t, back))

	// Linux truncates for O_RDONLY too, given permission to write.
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Close(fd))
	require.Equal(t, "", read(t, back))
}

func TestPosixNothingGrowsBeyondTheLargestUpload(t *testing.T) {
	m := newNamingMount(t, uploader.NamePolicy{Hold: []string{"*"}, HoldFor: time.Hour})
	name := join(m.dir, "f")
	write(t, name, "x")
	require.ErrorIs(t, os.Truncate(name, api.MaxUpload+1), syscall.EFBIG)
	require.NoError(t, os.Truncate(name, api.MaxUpload))

	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	require.ErrorIs(t, unix.Fallocate(int(f.Fd()), 0, api.MaxUpload, 1), syscall.EFBIG)
	from := int64(0)
	to := int64(api.MaxUpload)
	_, err = unix.CopyFileRange(int(f.Fd()), &from, int(f.Fd()), &to, 1, 0)
	require.ErrorIs(t, err, syscall.EFBIG)

	if m.do(t, "path") == string(fusefs.Passthrough) {
		return // the daemon sees no writes; close fails instead
	}
	_, err = f.WriteAt([]byte("y"), api.MaxUpload) // into the kernel's cache
	require.NoError(t, err)
	require.ErrorIs(t, f.Sync(), syscall.EFBIG)
	require.EqualValues(t, api.MaxUpload, lstat(t, join(m.tree, "f")).Size)
	require.NoError(t, f.Truncate(1))
}

// TestPosixExcludedFilesGrowBeyondTheLargestUpload: a file that is never sent has no
// limit but the disk's.
func TestPosixExcludedFilesGrowBeyondTheLargestUpload(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	write(t, name, "x")
	require.NoError(t, os.Truncate(name, api.MaxUpload+1))

	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	size := func(want int64) {
		t.Helper()
		require.Equal(t, want, lstat(t, name).Size)
		require.Equal(t, want, lstat(t, join(m.tree, "f")).Size)
	}
	const page = 4096
	end := int64(api.MaxUpload)
	_, err = f.WriteAt([]byte("end"), end)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	size(end + 3)
	require.NoError(t, unix.Fallocate(int(f.Fd()), 0, end+page, page))
	size(end + 2*page)
	require.NoError(t, f.Truncate(end+3*page))
	size(end + 3*page)
	from, to := end, end+3*page
	n, err := unix.CopyFileRange(int(f.Fd()), &from, int(f.Fd()), &to, 3, 0)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	size(end + 3*page + 3)
	from, to = 0, end-page // from below the limit to beyond it
	n, err = unix.CopyFileRange(int(f.Fd()), &from, int(f.Fd()), &to, 2*page, 0)
	require.NoError(t, err)
	require.Equal(t, 2*page, n)
	(*user)(nil).must(t, fmt.Sprintf("dd if=/dev/zero of=%s bs=%d count=1 seek=%d oflag=direct conv=notrunc status=none",
		name, page, end/page+4))
	size(end + 5*page)
	got := make([]byte, 3)
	_, err = f.ReadAt(got, end+3*page)
	require.NoError(t, err)
	require.Equal(t, "end", string(got))
	require.NoError(t, f.Close())
}

func TestPosixFallocate(t *testing.T) {
	m := newMount(t)
	name, back := join(m.dir, "f"), join(m.tree, "f")
	const page = 4096
	write(t, name, strings.Repeat("x", 4*page))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	allocate := func(mode uint32, off, size int64) error { return unix.Fallocate(int(f.Fd()), mode, off, size) }

	require.NoError(t, allocate(0, 0, 8*page))
	require.EqualValues(t, 8*page, lstat(t, name).Size)
	require.NoError(t, allocate(unix.FALLOC_FL_KEEP_SIZE, 8*page, 8*page))
	require.EqualValues(t, 8*page, lstat(t, name).Size)
	require.NoError(t, allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, page, page))
	require.NoError(t, allocate(unix.FALLOC_FL_ZERO_RANGE, 3*page, 6*page))
	require.NoError(t, allocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 9*page, page))

	want := bytes.Repeat([]byte("x"), 3*page)
	clear(want[page : 2*page])
	want = append(want, make([]byte, 6*page)...)
	require.Equal(t, string(want), read(t, name))
	require.Equal(t, string(want), read(t, back))

	require.ErrorIs(t, allocate(unix.FALLOC_FL_COLLAPSE_RANGE, 0, page), syscall.EOPNOTSUPP)
	require.ErrorIs(t, allocate(unix.FALLOC_FL_INSERT_RANGE, 0, page), syscall.EOPNOTSUPP)
}

func TestPosixCopyFileRange(t *testing.T) {
	m := newMount(t)
	write(t, join(m.dir, "from"), "0123456789")
	write(t, join(m.dir, "to"), "abcdefghij")
	from, err := os.Open(join(m.dir, "from"))
	require.NoError(t, err)
	defer from.Close()
	to, err := os.OpenFile(join(m.dir, "to"), os.O_RDWR, 0)
	require.NoError(t, err)
	defer to.Close()

	r, w := int64(2), int64(8)
	n, err := unix.CopyFileRange(int(from.Fd()), &r, int(to.Fd()), &w, 100, 0)
	require.NoError(t, err)
	require.Equal(t, 8, n)
	require.Equal(t, "abcdefgh23456789", read(t, join(m.dir, "to")))
	require.Equal(t, "abcdefgh23456789", read(t, join(m.tree, "to")))
}

func TestPosixSeekDataAndHole(t *testing.T) {
	m := newMount(t)
	f, err := os.Create(join(m.dir, "f"))
	require.NoError(t, err)
	defer f.Close()
	const mib = 1 << 20
	require.NoError(t, f.Truncate(4*mib))
	_, err = f.WriteAt(bytes.Repeat([]byte("d"), mib), 2*mib)
	require.NoError(t, err)
	// Not synced: bytes that only the kernel's cache has must not look like a hole.
	data, err := unix.Seek(int(f.Fd()), 2*mib, unix.SEEK_DATA)
	require.NoError(t, err)
	require.EqualValues(t, 2*mib, data)
	hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	require.NoError(t, err)
	require.GreaterOrEqual(t, hole, int64(3*mib))
	_, err = unix.Seek(int(f.Fd()), 4*mib, unix.SEEK_DATA)
	require.ErrorIs(t, err, syscall.ENXIO)
}

func TestPosixOpenUnlinkedFile(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	f, err := os.Create(name)
	require.NoError(t, err)
	_, err = f.WriteString("content")
	require.NoError(t, err)
	require.NoError(t, os.Remove(name))
	write(t, name, "another file of this name")

	require.NoError(t, f.Chmod(0o640))
	require.NoError(t, f.Truncate(4))
	at := unix.NsecToTimespec(42e9)
	require.NoError(t, unix.UtimesNanoAt(int(f.Fd()), "", []unix.Timespec{at, at}, unix.AT_EMPTY_PATH))
	require.NoError(t, unix.Fsetxattr(int(f.Fd()), "user.x", []byte("y"), 0))
	buf := make([]byte, 10)
	n, err := unix.Fgetxattr(int(f.Fd()), "user.x", buf)
	require.NoError(t, err)
	require.Equal(t, "y", string(buf[:n]))

	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	require.EqualValues(t, 0, st.Nlink)
	require.EqualValues(t, 4, st.Size)
	require.EqualValues(t, 0o640, st.Mode&0o7777)
	require.EqualValues(t, 42, st.Mtim.Sec)
	n, err = f.ReadAt(buf, 0)
	require.Equal(t, "cont", string(buf[:n]))
	require.Error(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	require.Equal(t, "another file of this name", read(t, name))
}

func TestPosixTmpfileGetsAName(t *testing.T) {
	m := newMount(t)
	fd, err := unix.Open(m.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("named late"))
	require.NoError(t, err)
	require.NoError(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, join(m.dir, "f"), unix.AT_SYMLINK_FOLLOW))
	require.Equal(t, "named late", read(t, join(m.dir, "f")))
	require.EqualValues(t, 1, lstat(t, join(m.dir, "f")).Nlink)
}

func TestPosixLocks(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	_, err = (*user)(nil).sh(t, "flock -n "+name+" true")
	require.Error(t, err, "flock(2) of another process")
	require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	(*user)(nil).must(t, "flock -n "+name+" true")

	lock := unix.Flock_t{Type: unix.F_WRLCK, Len: 10}
	require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock))
	g, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer g.Close()
	require.ErrorIs(t, unix.FcntlFlock(g.Fd(), unix.F_OFD_SETLK, &lock), syscall.EAGAIN)
	lock.Start = 10
	require.NoError(t, unix.FcntlFlock(g.Fd(), unix.F_OFD_SETLK, &lock))
}

func TestPosixSharedMappingOutlivesItsDescriptor(t *testing.T) {
	m := newMount(t)
	write(t, join(m.dir, "f"), strings.Repeat("-", 8192))
	helper(t, "mmap", join(m.dir, "f"))
	require.Equal(t, "first"+strings.Repeat("-", 5000-5)+"second"+strings.Repeat("-", 8192-5006), read(t, join(m.tree, "f")))
}

// storeAcrossClose stores to a file through a mapping of size bytes, before and
// after it closes the file. It returns the mapping.
func storeAcrossClose(name string, size int) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	copy(mem, "first")
	if err := f.Close(); err != nil {
		return nil, err
	}
	copy(mem[5000:], "second")
	return mem, nil
}

func mmapHelper(args []string) error {
	mem, err := storeAcrossClose(args[0], 8192)
	if err != nil {
		return err
	}
	if err := unix.Msync(mem, unix.MS_SYNC); err != nil {
		return err
	}
	return unix.Munmap(mem)
}
