//go:build linux

package fusefs_test

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestPosix runs go-fuse's own conformance tests, each on a mount of its own.
func TestPosix(t *testing.T) {
	for name, test := range posixtest.All {
		switch name {
		case "FcntlFlockLocksFile":
			continue // wants one process's two fcntl locks to conflict: they never do
		case "OpenSymlinkRace":
			continue // takes ESTALE for a failure: see TestPosixOpenOfWhatIsReplaced
		}
		t.Run(name, func(t *testing.T) { test(t, newMount(t).dir) })
	}
}

// TestPosixOpenOfWhatIsReplaced opens a name that is now an empty file and now a symlink
// to a file outside. The daemon never follows the link. A file replaced between the
// kernel's lookup and its open is ESTALE: the kernel then looks once more, and
// gives up when that one is replaced too.
func TestPosixOpenOfWhatIsReplaced(t *testing.T) {
	m := newMount(t)
	outside := join(tempDir(t), "outside")
	write(t, outside, "secret")
	name, next := join(m.dir, "f"), join(m.dir, "next")
	write(t, name, "")
	device := lstat(t, name).Dev

	stop := make(chan struct{})
	var opener sync.WaitGroup
	opener.Go(func() {
		for {
			fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				var st unix.Stat_t
				err = unix.Fstat(fd, &st)
				unix.Close(fd)
				if err == nil && st.Dev == device && st.Size > 0 {
					t.Error("the daemon has followed a symlink")
				}
			}
			switch err {
			case nil, unix.ESTALE, unix.ENOENT, unix.ELOOP, unix.EINVAL:
			default:
				t.Errorf("open: %v", err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 200 {
		write(t, next, "")
		require.NoError(t, os.Rename(next, name))
		require.NoError(t, os.Symlink(outside, next))
		require.NoError(t, os.Rename(next, name))
	}
	close(stop)
	opener.Wait()
}

// TestAsOrdinaryUser runs the tests of files, attributes, mounts and tools again as a
// user without privilege: fusermount3 mounts, and the daemon can give no file away.
func TestAsOrdinaryUser(t *testing.T) {
	if !isRoot() {
		m := newMount(t)
		write(t, join(m.dir, "f"), "mine")
		require.EqualValues(t, os.Geteuid(), lstat(t, join(m.tree, "f")).Uid)
		return
	}
	dir := tempDir(t)
	require.NoError(t, os.Chmod(dir, 0o777))
	program, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(join(dir, "tests"), program, 0o755))

	cmd := exec.Command(join(dir, "tests"), "-test.timeout=0", "-test.run=^Test(Posix|Attrs|Mount|Tool)")
	cmd.Dir = dir
	// Not the write path under test: ordinary users have no passthrough.
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir, "UPLOADFS_TEST_WRITE_PATH=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody.uid, Gid: nobody.gid}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
