//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestPosixHardLinks(t *testing.T) {
	m := newMount(t)
	a, b := join(m.dir, "a"), join(m.dir, "dir", "b")
	write(t, a, "one file")
	require.NoError(t, os.Mkdir(join(m.dir, "dir"), 0o755))
	require.NoError(t, os.Link(a, b))
	require.EqualValues(t, 2, lstat(t, a).Nlink)
	require.Equal(t, lstat(t, a).Ino, lstat(t, b).Ino)
	require.NoError(t, os.Chmod(b, 0o600))
	require.EqualValues(t, 0o600, lstat(t, a).Mode&0o7777)
	write(t, b, "changed")
	require.Equal(t, "changed", read(t, a))
	require.NoError(t, os.Remove(a))
	require.EqualValues(t, 1, lstat(t, b).Nlink)
	require.Equal(t, "changed", read(t, b))
}

func TestPosixHardLinkOfASymlink(t *testing.T) {
	m := newMount(t)
	write(t, join(m.dir, "f"), "x")
	require.NoError(t, os.Symlink("f", join(m.dir, "a")))
	require.NoError(t, os.Link(join(m.dir, "a"), join(m.dir, "b")))
	target, err := os.Readlink(join(m.dir, "b"))
	require.NoError(t, err)
	require.Equal(t, "f", target)
	require.EqualValues(t, 2, lstat(t, join(m.dir, "a")).Nlink)
	require.EqualValues(t, 1, lstat(t, join(m.dir, "f")).Nlink)
}

func TestPosixDirectoryLinkCount(t *testing.T) {
	m := newMount(t)
	require.EqualValues(t, 2, lstat(t, m.dir).Nlink)
	require.NoError(t, os.Mkdir(join(m.dir, "d"), 0o755))
	require.EqualValues(t, 3, lstat(t, m.dir).Nlink)
	require.NoError(t, os.Remove(join(m.dir, "d")))
	require.EqualValues(t, 2, lstat(t, m.dir).Nlink)
}

func TestPosixLongNames(t *testing.T) {
	m := newMount(t)
	longest := strings.Repeat("ä", 127) + "x"
	require.Len(t, longest, 255)
	write(t, join(m.dir, longest), "x")
	require.Equal(t, []string{longest}, names(t, m.dir))
	require.ErrorIs(t, os.WriteFile(join(m.dir, longest+"y"), nil, 0o644), syscall.ENAMETOOLONG)
}

// TestPosixPathLongerThanPathMax descends in steps: PATH_MAX bounds one call, not a tree.
func TestPosixPathLongerThanPathMax(t *testing.T) {
	m := newMount(t)
	step := strings.Repeat("d", 200)
	fd, err := unix.Open(m.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	for range 25 {
		require.NoError(t, unix.Mkdirat(fd, step, 0o755))
		next, err := unix.Openat(fd, step, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Close(fd))
		fd = next
	}
	defer unix.Close(fd)
	f, err := unix.Openat(fd, "deep", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	require.NoError(t, err)
	_, err = unix.Write(f, []byte("down here"))
	require.NoError(t, err)
	require.NoError(t, unix.Close(f))
	require.NoError(t, unix.Fchmodat(fd, "deep", 0o600, 0))
	require.NoError(t, unix.Renameat(fd, "deep", fd, "deeper"))
	var st unix.Stat_t
	require.NoError(t, unix.Fstatat(fd, "deeper", &st, 0))
	require.EqualValues(t, 9, st.Size)
	require.EqualValues(t, 0o600, st.Mode&0o7777)
}

func TestPosixRenameOverAnOpenFile(t *testing.T) {
	m := newMount(t)
	old, now := join(m.dir, "old"), join(m.dir, "new")
	write(t, now, "before")
	f, err := os.OpenFile(now, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	write(t, old, "after")
	require.NoError(t, os.Rename(old, now))
	require.Equal(t, "after", read(t, now))
	_, err = f.WriteAt([]byte("B"), 0)
	require.NoError(t, err)
	buf := make([]byte, 6)
	_, err = f.ReadAt(buf, 0)
	require.NoError(t, err)
	require.Equal(t, "Before", string(buf))
	require.NoError(t, f.Sync())
	require.Equal(t, "after", read(t, join(m.tree, "new")))
	require.Equal(t, []string{"new"}, names(t, m.dir))
}

func TestPosixRenameFlags(t *testing.T) {
	m := newMount(t)
	a, b := join(m.dir, "a"), join(m.dir, "b")
	rename := func(flags uint) error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags) }
	write(t, a, "A")
	require.NoError(t, rename(unix.RENAME_NOREPLACE))
	write(t, a, "new A")
	require.ErrorIs(t, rename(unix.RENAME_NOREPLACE), syscall.EEXIST)
	require.NoError(t, rename(unix.RENAME_EXCHANGE))
	require.Equal(t, "A", read(t, a))
	require.Equal(t, "new A", read(t, b))
	require.ErrorIs(t, rename(unix.RENAME_WHITEOUT), syscall.EINVAL)

	require.NoError(t, os.Mkdir(join(m.dir, "d"), 0o755))
	write(t, join(m.dir, "d", "inside"), "in")
	require.NoError(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, join(m.dir, "d"), unix.RENAME_EXCHANGE))
	require.Equal(t, "in", read(t, join(a, "inside")))
}

// TestPosixRenameAboveWorkGoingOn renames a directory back and forth. Meanwhile files
// below it are created, opened, changed and removed through descriptors.
func TestPosixRenameAboveWorkGoingOn(t *testing.T) {
	m := newMount(t)
	here, there := join(m.dir, "here"), join(m.dir, "there")
	require.NoError(t, os.MkdirAll(join(here, "sub"), 0o755))
	fd, err := unix.Open(join(here, "sub"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)

	stop := make(chan struct{})
	var renames sync.WaitGroup
	renames.Go(func() {
		for {
			for _, r := range [][2]string{{here, there}, {there, here}} {
				if err := os.Rename(r[0], r[1]); err != nil {
					t.Errorf("rename: %v", err)
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	work := func(name string) error {
		f, err := unix.Openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		if err := unix.Close(f); err != nil {
			return fmt.Errorf("close: %w", err)
		}
		if err := unix.Fchmodat(fd, name, 0o600, 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
		if f, err = unix.Openat(fd, name, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err := unix.Fsetxattr(f, "user.x", []byte("y"), 0); err != nil {
			return fmt.Errorf("setxattr: %w", err)
		}
		if err := unix.Close(f); err != nil {
			return fmt.Errorf("close: %w", err)
		}
		return unix.Unlinkat(fd, name, 0)
	}
	var workers sync.WaitGroup
	for w := range 3 {
		workers.Go(func() {
			for i := range 200 {
				if err := work(fmt.Sprintf("%d.%d", w, i)); err != nil {
					t.Errorf("worker %d, round %d: %v", w, i, err)
					return
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	renames.Wait()
	require.Empty(t, names(t, join(here, "sub")))
}

func TestPosixSpecialFiles(t *testing.T) {
	m := newMount(t)
	fifo := join(m.dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o644))
	require.Equal(t, "through", (*user)(nil).must(t, fmt.Sprintf("echo through > %s & cat %s", fifo, fifo)))

	require.NoError(t, unix.Mknod(join(m.dir, "plain"), unix.S_IFREG|0o644, 0))
	write(t, join(m.dir, "plain"), "a file")

	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: join(m.dir, "sock")}))
	require.EqualValues(t, unix.S_IFSOCK, lstat(t, join(m.dir, "sock")).Mode&unix.S_IFMT)

	dev := int(unix.Mkdev(1, 300))
	err = unix.Mknod(join(m.dir, "null"), unix.S_IFCHR|0o666, dev)
	if !isRoot() {
		require.ErrorIs(t, err, syscall.EPERM)
		return
	}
	require.NoError(t, err)
	require.EqualValues(t, dev, lstat(t, join(m.dir, "null")).Rdev)
	_, err = os.Open(join(m.dir, "null"))
	require.ErrorIs(t, err, syscall.EACCES, "the mount is nodev")
}

// TestPosixDirectorySwappedForSymlink changes the backing tree behind the mount, as an
// attacker would to lead a daemon that runs as root out of the tree.
func TestPosixDirectorySwappedForSymlink(t *testing.T) {
	m := newMount(t)
	outside := tempDir(t)
	write(t, join(outside, "secret"), "secret")
	require.NoError(t, os.Mkdir(join(m.dir, "d"), 0o755))
	write(t, join(m.dir, "d", "secret"), "mine")
	fd, err := unix.Open(join(m.dir, "d"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)

	require.NoError(t, os.Rename(join(m.tree, "d"), join(m.tree, "away")))
	require.NoError(t, os.Symlink(outside, join(m.tree, "d")))

	// The directory is found by the descriptor that is open on it; so may be the
	// file in it, before the RELEASE of its writer arrives.
	f, err := unix.Openat(fd, "secret", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		content := make([]byte, 10)
		n, err := unix.Read(f, content)
		require.NoError(t, err)
		require.Equal(t, "mine", string(content[:n]))
		require.NoError(t, unix.Close(f))
	} else {
		require.ErrorIs(t, err, syscall.ESTALE)
	}
	f, err = unix.Openat(fd, "new", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	require.NoError(t, err)
	require.NoError(t, unix.Close(f))
	require.FileExists(t, join(m.tree, "away", "new"))
	require.NoError(t, unix.Unlinkat(fd, "secret", 0))
	require.NoFileExists(t, join(m.tree, "away", "secret"))
	require.Equal(t, []string{"secret"}, names(t, outside))
	require.Equal(t, "secret", read(t, join(outside, "secret")))
}
