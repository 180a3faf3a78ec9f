//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The kernel caches attributes. These tests change files in ways that it cannot see.

// oldTime is an mtime that no change of a test's own gives a file.
var oldTime = time.Unix(1000, 0)

// setOldTime gives a file the mtime oldTime, and makes the kernel know it.
func setOldTime(t *testing.T, name string) {
	t.Helper()
	require.NoError(t, os.Chtimes(name, oldTime, oldTime))
	require.Equal(t, oldTime.Unix(), lstat(t, name).Mtim.Sec)
}

// mapFile maps a file for stores. The caller unmaps it and closes the file.
func mapFile(t *testing.T, name string) (f *os.File, mem []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	mem, err = unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	return f, mem
}

func TestPosixCloseShowsTheTimeOfAStore(t *testing.T) {
	m := newMount(t)
	name := join(m.dir, "f")
	write(t, name, strings.Repeat("-", os.Getpagesize()))
	f, mem := mapFile(t, name)
	setOldTime(t, name) // the kernel forgets the times when a file is mapped
	mem[0] = '+'
	require.NoError(t, unix.Munmap(mem))
	require.NoError(t, f.Close())
	require.WithinDuration(t, time.Now(), time.Unix(lstat(t, name).Mtim.Unix()), time.Hour)
}

// TestPosixMsyncShowsTheTimeOfAStore: a mapping lives, with its descriptor and without.
// In passthrough the daemon sees the store when it polls the file.
func TestPosixMsyncShowsTheTimeOfAStore(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("descriptor closed %v", closed), func(t *testing.T) {
			m := newMount(t)
			name := join(m.dir, "f")
			write(t, name, strings.Repeat("-", os.Getpagesize()))
			f, mem := mapFile(t, name)
			if closed {
				require.NoError(t, f.Close())
			}
			setOldTime(t, name)
			require.Eventually(t, func() bool {
				mem[0]++ // sets the time if the page is clean
				require.NoError(t, unix.Msync(mem, unix.MS_SYNC))
				return lstat(t, name).Mtim.Sec != oldTime.Unix()
			}, patience, 20*time.Millisecond)
			require.NoError(t, unix.Munmap(mem))
			if !closed {
				require.NoError(t, f.Close())
			}
		})
	}
}

// TestPosixDirectWriteAndSetID: whether set-id bits survive a write with O_DIRECT is a
// matter of CAP_FSETID, not of the user. The kernel knows it while the file is open.
func TestPosixDirectWriteAndSetID(t *testing.T) {
	_, dir, _ := shared(t)
	name := join(dir, "f")
	write(t, name, strings.Repeat("-", directSize))
	// All capabilities, and none in the namespace of the mount.
	namespace := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: int(nobody.uid), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: int(nobody.gid), Size: 1}},
	}
	credential := &syscall.Credential{Uid: nobody.uid, Gid: nobody.gid}
	for writer, c := range map[string]struct {
		attr  *syscall.SysProcAttr
		args  []string // of the helper
		root  bool     // only root can start it
		keeps bool
	}{
		"who runs the tests":      {keeps: isRoot()},
		"an ordinary user":        {attr: &syscall.SysProcAttr{Credential: credential}, root: true},
		"one with the capability": {attr: &syscall.SysProcAttr{Credential: credential, AmbientCaps: []uintptr{unix.CAP_FSETID}}, root: true, keeps: true},
		"root without it":         {args: []string{"drop"}, root: true},
		"the root of a namespace": {attr: namespace, root: true},
	} {
		if c.root && !isRoot() {
			continue
		}
		require.NoError(t, syscall.Chmod(name, 0o6777))
		require.EqualValues(t, 0o6777, lstat(t, name).Mode&0o7777)
		cmd := exec.Command("/proc/self/exe", append([]string{name}, c.args...)...)
		cmd.Env = append(os.Environ(), "FUSEFS_TEST_HELPER=direct")
		cmd.SysProcAttr = c.attr
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", writer, out)
		want := "777"
		if c.keeps {
			want = "6777"
		}
		require.Equal(t, want, string(out), writer)
		require.Equal(t, want, fmt.Sprintf("%o", lstat(t, name).Mode&0o7777), writer)
	}
}

const directSize = 4096 // bytes of a write with O_DIRECT

// directHelper writes to a file with O_DIRECT, and prints the mode that the kernel
// knows then. With a second argument it gives CAP_FSETID up first.
func directHelper(args []string) error {
	runtime.LockOSThread() // capabilities are a thread's
	if len(args) > 1 {
		if err := giveUp(unix.CAP_FSETID); err != nil {
			return err
		}
	}
	fd, err := unix.Open(args[0], unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	page, err := unix.Mmap(-1, 0, directSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	if _, err := unix.Pwrite(fd, page, 0); err != nil {
		return err
	}
	// Nothing else is asked for: the kernel renews what it knows to have changed.
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MODE, &st); err != nil {
		return err
	}
	fmt.Printf("%o", st.Mode&0o7777)
	return nil
}

// giveUp takes a capability from the effective ones of the calling thread.
func giveUp(capability int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	sets[capability/32].Effective &^= 1 << (capability % 32)
	return unix.Capset(&header, &sets[0])
}

// TestPosixOverwrittenSetUIDProgram runs a program of root's that another user has just
// overwritten with O_DIRECT.
func TestPosixOverwrittenSetUIDProgram(t *testing.T) {
	if !isRoot() {
		t.Skip("needs a mount with set-uid programs of another user")
	}
	_, dir, u := shared(t)
	name := join(dir, "prog")
	(*user)(nil).must(t, "cp /usr/bin/id "+name)
	require.NoError(t, syscall.Chmod(name, 0o4777))
	require.Equal(t, "0", u.must(t, name+" -u"))
	u.must(t, "dd if=/usr/bin/id of="+name+" bs=4096 oflag=direct conv=notrunc status=none")
	require.Equal(t, fmt.Sprint(u.uid), u.must(t, name+" -u"))
}

// TestPosixMknodKeepsSetID compares with a directory that is in no mount.
func TestPosixMknodKeepsSetID(t *testing.T) {
	_, dir, _ := shared(t)
	native := tempDir(t)
	for _, d := range []string{dir, native} {
		if isRoot() {
			require.NoError(t, os.Chown(d, 0, 4242))
		}
		require.NoError(t, syscall.Chmod(d, 0o2777))
		helper(t, "mknod", join(d, "mine"))
		if isRoot() {
			cmd := exec.Command("/proc/self/exe", join(d, "other"))
			cmd.Env = append(os.Environ(), "FUSEFS_TEST_HELPER=mknod")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody.uid, Gid: nobody.gid}}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
	}
	all := names(t, native)
	require.NotEmpty(t, all)
	for _, name := range all {
		want, got := lstat(t, join(native, name)), lstat(t, join(dir, name))
		require.Equal(t, fmt.Sprintf("%o", want.Mode), fmt.Sprintf("%o", got.Mode), name)
		require.Equal(t, want.Gid, got.Gid, name)
	}
}

// mknodHelper makes files of several types with set-id bits. Their names begin with its
// argument.
func mknodHelper(args []string) error {
	for kind, bits := range map[string]uint32{"regular": unix.S_IFREG, "fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK} {
		for _, perm := range []uint32{0o6755, 0o2755, 0o2745, 0o4755} {
			err := unix.Mknod(fmt.Sprintf("%s-%s-%o", args[0], kind, perm), bits|perm, 0)
			if err != nil {
				return fmt.Errorf("%s %o: %w", kind, perm, err)
			}
		}
	}
	return nil
}

// TestPosixNoFileHandles: a handle that opens nothing is worse than none.
func TestPosixNoFileHandles(t *testing.T) {
	m := newMount(t)
	write(t, join(m.dir, "f"), "x")
	for _, name := range []string{"f", ""} {
		_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, join(m.dir, name), 0)
		if err == nil && kernelBefore(t, 6, 9) {
			t.Skip("this kernel cannot be told")
		}
		require.ErrorIs(t, err, unix.EOPNOTSUPP)
	}
}

// kernelBefore reports whether the running kernel is older than this version.
func kernelBefore(t *testing.T, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	var v [2]int
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &v[0], &v[1])
	require.NoError(t, err)
	return v[0] < major || v[0] == major && v[1] < minor
}
