//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestPosixRemovedAndSynced removes names in each way and has the filesystem synced. In
// write-back the kernel sends the times of an inode when its name has gone already.
func TestPosixRemovedAndSynced(t *testing.T) {
	m := newMount(t)
	for what, script := range map[string]string{
		"rm":                      `echo hi > f; rm f`,
		"rename over":             `echo a > x; echo b > y; mv x y`,
		"rename over, open":       `echo a > x; echo b > y; exec 3< y; mv x y; cat <&3`,
		"rm of one of two names":  `echo hi > a; ln a b; rm a; rm b`,
		"rm of many":              `for i in 1 2 3 4 5 6 7 8 9; do echo $i > f$i; done; rm f?`,
		"rmdir":                   `mkdir d; rmdir d`,
		"rename over a directory": `mkdir d e; touch d; mv -T d e`,
		"rm of a symlink":         `ln -s nowhere l; rm l`,
		"rm of what is mapped":    `echo text > f; exec 3<> f; rm f; echo more >&3; sync -d /dev/fd/3`,
	} {
		t.Run(what, func(t *testing.T) {
			dir := join(m.dir, strings.ReplaceAll(what, " ", "-"))
			require.NoError(t, os.Mkdir(dir, 0o755))
			d, err := os.Open(dir)
			require.NoError(t, err)
			defer d.Close()
			// An error of the filesystem is told to descriptors that were open then.
			(*user)(nil).must(t, "cd "+dir+" && "+script)
			require.NoError(t, unix.Syncfs(int(d.Fd())))
			(*user)(nil).must(t, "sync -f "+dir)
		})
	}
}

// TestPosixUseOfTheRemoved uses inodes that have lost their last name, and are open in a
// way of which the daemon learns nothing: by an O_PATH descriptor, as a working
// directory. Each step has the result that it has on a native filesystem.
func TestPosixUseOfTheRemoved(t *testing.T) {
	m := newMount(t)
	native := tempDir(t)
	for name, use := range map[string]func(t *testing.T, dir string) []any{
		"file":                     useRemovedFile,
		"replaced":                 useReplacedFile,
		"symlink":                  useRemovedSymlink,
		"directory":                useRemovedDirectory,
		"without any name":         useUnnamedFile,
		"without any name, closed": useClosedUnnamedFile,
		"another name":             useOtherName,
	} {
		t.Run(name, func(t *testing.T) {
			want := use(t, native)
			require.Equal(t, want, use(t, m.dir))
		})
	}
	// That no descriptor is left is checked when the mount ends, see serveHelper.
}

// outcome is what a call returns, without what differs from filesystem to filesystem.
func outcome(call string, err error) string { return fmt.Sprint(call, ": ", err) }

// viaProc is the way to the inode of a descriptor for calls that take a path.
func viaProc(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func openPathFD(t *testing.T, name string) int {
	t.Helper()
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// describe is what stat(2) tells of an inode, without its place.
func describe(fd int) string {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size, st.Nlink = 0, 0 // differ between filesystems
	}
	return fmt.Sprintf("mode %o, %d bytes, %d names, mtime %d: %v", st.Mode, size, st.Nlink, st.Mtim.Sec%4000, err)
}

// useInode uses a regular file of which only a path descriptor is left.
func useInode(fd int) (got []any) {
	path := viaProc(fd)
	got = append(got,
		outcome("chmod", unix.Chmod(path, 0o640)),
		outcome("setxattr", unix.Setxattr(path, "user.test", []byte("value"), 0)),
		outcome("truncate", unix.Truncate(path, 3)),
	)
	value := make([]byte, 16)
	n, err := unix.Getxattr(path, "user.test", value)
	got = append(got, string(value[:max(n, 0)]), outcome("getxattr", err))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	got = append(got, outcome("open", err))
	if err == nil {
		_, err := f.WriteAt([]byte("new"), 2)
		b := make([]byte, 16)
		n, _ := f.ReadAt(b, 0)
		got = append(got, outcome("write", err), string(b[:n]), outcome("fsync", f.Sync()), outcome("close", f.Close()))
	}
	times := []unix.Timespec{{Sec: 1000}, {Sec: 2000}}
	got = append(got, outcome("utimes", unix.UtimesNanoAt(unix.AT_FDCWD, path, times, 0)))
	// On the first call the attributes may be the kernel's own.
	return append(got, describe(fd), describe(fd))
}

func useRemovedFile(t *testing.T, dir string) []any {
	write(t, join(dir, "f"), "content")
	fd := openPathFD(t, join(dir, "f"))
	require.NoError(t, os.Remove(join(dir, "f")))
	return useInode(fd)
}

func useReplacedFile(t *testing.T, dir string) []any {
	write(t, join(dir, "f"), "content")
	write(t, join(dir, "g"), "other content")
	fd := openPathFD(t, join(dir, "f"))
	require.NoError(t, os.Rename(join(dir, "g"), join(dir, "f")))
	return append(useInode(fd), read(t, join(dir, "f")))
}

func useRemovedSymlink(t *testing.T, dir string) []any {
	require.NoError(t, os.Symlink("target", join(dir, "l")))
	fd := openPathFD(t, join(dir, "l"))
	require.NoError(t, os.Remove(join(dir, "l")))
	b := make([]byte, 16)
	n, err := unix.Readlinkat(fd, "", b)
	return []any{string(b[:max(n, 0)]), outcome("readlink", err), strings.Split(describe(fd), ", mtime")[0]}
}

func useRemovedDirectory(t *testing.T, dir string) []any {
	d := join(dir, "d")
	require.NoError(t, os.Mkdir(d, 0o755))
	// The program is in the directory, which is open nowhere else.
	cmd := exec.Command("python3", "-c", `
import os, sys
os.rmdir(sys.argv[1])
def call(what, *args):
    try: print(what.__name__, what(*args))
    except OSError as e: print(what.__name__, e.strerror)
call(os.listdir, ".")
call(os.chmod, ".", 0o700)
call(os.mkdir, "new")
call(os.setxattr, ".", "user.test", b"value")
call(os.getxattr, ".", "user.test")
call(lambda: oct(os.stat(".").st_mode))
call(os.utime, ".", (1000, 2000))
call(lambda: int(os.stat(".").st_mtime))
`, d)
	cmd.Dir = d
	out, err := cmd.CombinedOutput()
	return []any{string(out), err}
}

func useUnnamedFile(t *testing.T, dir string) []any {
	f, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	defer unix.Close(f)
	_, err = unix.Write(f, []byte("content"))
	require.NoError(t, err)
	got := useInode(f)
	got = append(got, outcome("linkat", unix.Linkat(unix.AT_FDCWD, viaProc(f), unix.AT_FDCWD, join(dir, "named"), unix.AT_SYMLINK_FOLLOW)))
	return append(got, describe(f), read(t, join(dir, "named")))
}

// useClosedUnnamedFile keeps only an O_PATH descriptor of a file that never had a name.
func useClosedUnnamedFile(t *testing.T, dir string) []any {
	f, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	_, err = unix.Write(f, []byte("content"))
	require.NoError(t, err)
	fd, err := unix.Open(viaProc(f), unix.O_PATH|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Close(f))
	got := useInode(fd)
	got = append(got, outcome("linkat", unix.Linkat(unix.AT_FDCWD, viaProc(fd), unix.AT_FDCWD, join(dir, "named later"), unix.AT_SYMLINK_FOLLOW)))
	return append(got, describe(fd), read(t, join(dir, "named later")))
}

// TestNoDescriptorOfANamedFileIsKept makes files without a name, and names some of them.
func TestNoDescriptorOfANamedFileIsKept(t *testing.T) {
	s := newStack(t, stackOptions{})
	for i := range 20 {
		fd, err := unix.Open(s.Dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		require.NoError(t, err)
		if i%2 == 0 {
			require.NoError(t, unix.Linkat(unix.AT_FDCWD, viaProc(fd), unix.AT_FDCWD, s.path(fmt.Sprint(i)), unix.AT_SYMLINK_FOLLOW))
		}
		require.NoError(t, unix.Close(fd))
	}
	tree := join(s.State, "tree") + "/"
	require.Eventually(t, func() bool {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		for _, fd := range fds {
			if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, tree) {
				return false
			}
		}
		return true
	}, patience, time.Millisecond)
	require.Len(t, strings.Fields(s.run("ls")), 10)
}

// useOtherName removes the name by which the kernel knows a file that has another one.
func useOtherName(t *testing.T, dir string) []any {
	write(t, join(dir, "f1"), "content")
	fd := openPathFD(t, join(dir, "f1"))
	require.NoError(t, os.Link(join(dir, "f1"), join(dir, "f2")))
	require.NoError(t, os.Remove(join(dir, "f1")))
	got := append(useInode(fd), read(t, join(dir, "f2")))
	require.NoError(t, os.Remove(join(dir, "f2")))
	return append(got, useInode(fd)...)
}

// TestRemovedFreesItsSpace removes files that nothing uses: no descriptor of the
// daemon's may keep their blocks.
func TestRemovedFreesItsSpace(t *testing.T) {
	s := newStack(t, stackOptions{})
	kept := func() (n int) {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		for _, fd := range fds {
			link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
			if strings.HasPrefix(link, s.State) && strings.HasSuffix(link, "(deleted)") {
				n++
			}
		}
		return n
	}
	s.run(`for i in 1 2 3; do echo $i > f$i; done; mkdir d; ln -s f1 l`)
	p := s.start(`
import os, sys
fd = os.open("f1", os.O_PATH)
os.remove("f1")
print("removed", flush=True)
sys.stdin.readline()
`)
	p.expect("removed")
	require.Equal(t, 1, kept(), "a program still refers to it")
	p.send("go on")
	require.NoError(t, p.wait())
	s.run(`mv f2 f3; rm f3 l; rmdir d`)
	require.Eventually(t, func() bool { return kept() == 0 }, patience, time.Millisecond)
}
