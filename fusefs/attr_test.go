//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestPosixTimes(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	write(t, name, "x")
	set := func(atime, mtime unix.Timespec) {
		t.Helper()
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{atime, mtime}, 0))
	}
	set(unix.Timespec{Sec: 1000, Nsec: 1}, unix.Timespec{Sec: 2000, Nsec: 2})
	for _, place := range []string{name, join(m.tree, "f")} {
		st := lstat(t, place)
		require.Equal(t, syscall.Timespec{Sec: 1000, Nsec: 1}, st.Atim)
		require.Equal(t, syscall.Timespec{Sec: 2000, Nsec: 2}, st.Mtim)
	}
	set(unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Sec: 3000})
	require.EqualValues(t, 1000, lstat(t, name).Atim.Sec)
	require.EqualValues(t, 3000, lstat(t, name).Mtim.Sec)
	set(unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT})
	require.WithinDuration(t, time.Now(), time.Unix(lstat(t, name).Atim.Unix()), time.Minute)
	require.EqualValues(t, 3000, lstat(t, name).Mtim.Sec)
	set(unix.Timespec{Sec: -5}, unix.Timespec{Sec: -5}) // before the epoch
	require.EqualValues(t, -5, lstat(t, name).Mtim.Sec)
}

func TestPosixWriteSetsTimes(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	write(t, name, "x")
	old := time.Unix(1000, 0)
	require.NoError(t, os.Chtimes(name, old, old))
	write(t, name, "y")
	for _, place := range []string{name, join(m.tree, "f")} {
		require.WithinDuration(t, time.Now(), time.Unix(lstat(t, place).Mtim.Unix()), time.Minute)
	}
	// A copy that keeps times (cp -p) sets them before it closes the file.
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("z")
	require.NoError(t, err)
	at := unix.NsecToTimespec(old.UnixNano())
	require.NoError(t, unix.UtimesNanoAt(int(f.Fd()), "", []unix.Timespec{at, at}, unix.AT_EMPTY_PATH))
	require.NoError(t, f.Close())
	require.EqualValues(t, 1000, lstat(t, name).Mtim.Sec)
	require.EqualValues(t, 1000, lstat(t, join(m.tree, "f")).Mtim.Sec)
}

func TestPosixStatx(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	write(t, name, "12345")
	var here, there unix.Statx_t
	require.NoError(t, unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_ALL, &here))
	require.NoError(t, unix.Statx(unix.AT_FDCWD, join(m.tree, "f"), 0, unix.STATX_ALL, &there))
	require.NotZero(t, here.Mask&unix.STATX_BTIME)
	require.Equal(t, there.Btime, here.Btime)
	require.Equal(t, there.Ino, here.Ino)
	require.EqualValues(t, 5, here.Size)
	require.Equal(t, there.Blocks, here.Blocks)
}

func TestPosixStatfs(t *testing.T) {
	m := newMount(t)
	var here, there unix.Statfs_t
	require.NoError(t, unix.Statfs(m.dir, &here))
	require.NoError(t, unix.Statfs(m.tree, &there))
	require.Equal(t, there.Blocks, here.Blocks)
	require.Equal(t, there.Files, here.Files)
	require.EqualValues(t, 255, here.Namelen)
}

func TestPosixModeIsWhatItSays(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	write(t, name, "x")
	for _, mode := range []uint32{0, 0o400, 0o1777, 0o4755, 0o2755} {
		require.NoError(t, unix.Chmod(name, mode))
		require.Equal(t, mode, lstat(t, name).Mode&0o7777)
		require.Equal(t, mode, lstat(t, join(m.tree, "f")).Mode&0o7777)
	}
	require.NoError(t, os.Chmod(m.dir, 0o700))
	require.EqualValues(t, 0o700, lstat(t, m.tree).Mode&0o7777)
}

// TestPosixUmaskIsTheCallers compares the modes of new files with those of a native
// directory: the kernel leaves the umask to the daemon.
func TestPosixUmaskIsTheCallers(t *testing.T) {
	m := newMount(t)
	const script = `umask %s; mkdir -p %s; cd %[2]s
		mkdir d; mkdir -m 755 e; mkdir -m 2775 g; mkdir g/sub; touch g/f; touch f; mkfifo p; mkfifo -m 644 q; ln -s f l
		python3 -c '
import os, socket, tempfile
os.close(tempfile.mkstemp(dir=".", prefix="", suffix=".m")[0])
for mode in 0o600, 0o4755, 0o2777, 0o1666, 0: os.close(os.open("o%%o" %% mode, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))
os.mknod("n", 0o666); os.mkdir("s", 0o1777)
socket.socket(socket.AF_UNIX).bind("u")
f = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o666)
os.link("/proc/self/fd/%%d" %% f, "t", src_dir_fd=0)'
		find . -mindepth 1 -printf '%%M %%U %%G %%f\n' | sed 's/[^ ]*\.m$/m/' | sort -k4`
	for _, umask := range umasks {
		native := (*user)(nil).must(t, fmt.Sprintf(script, umask, join(tempDir(t), umask)))
		require.Contains(t, native, "prw")
		require.Equal(t, native, (*user)(nil).must(t, fmt.Sprintf(script, umask, join(m.dir, umask))), "umask %s", umask)
	}
}
