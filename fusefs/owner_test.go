//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// shared makes a directory in a mount that every user may write to. u is another
// user in a root's mount; in an ordinary user's it is nil, that user.
func shared(t *testing.T) (m *testMount, dir string, u *user) {
	t.Helper()
	m = newMount(t, options()...)
	dir = join(m.dir, "pub")
	require.NoError(t, os.Mkdir(dir, 0o777))
	if isRoot() {
		return m, dir, nobody
	}
	return m, dir, nil
}

// options allow set-id bits where the user may allow them.
func options() []string {
	if isRoot() {
		return []string{"suid"}
	}
	return nil
}

func TestPosixNewFilesBelongToTheCaller(t *testing.T) {
	m, dir, u := shared(t)
	u.must(t, "cd "+dir+"; touch f; mkdir d; ln -s f l; mkfifo p")
	for _, name := range []string{"f", "d", "l", "p"} {
		st := lstat(t, join(m.tree, "pub", name))
		require.EqualValues(t, nobody.uid, st.Uid, name)
		require.EqualValues(t, nobody.gid, st.Gid, name)
	}
}

func TestPosixSetGroupDirectoryGivesItsGroup(t *testing.T) {
	m, dir, u := shared(t)
	group := uint32(os.Getegid())
	if isRoot() {
		group = 4242
		require.NoError(t, os.Chown(dir, 0, int(group)))
	}
	require.NoError(t, syscall.Chmod(dir, 0o2777))
	u.must(t, "cd "+dir+"; touch f; mkdir d; ln -s f l; touch d/g")
	for _, name := range []string{"f", "d", "l", "d/g"} {
		require.Equal(t, group, lstat(t, join(m.tree, "pub", name)).Gid, name)
	}
	require.EqualValues(t, 0o2755, lstat(t, join(dir, "d")).Mode&0o7777)
	require.EqualValues(t, 0o644, lstat(t, join(dir, "f")).Mode&0o7777)
}

func TestPosixKernelChecksPermissions(t *testing.T) {
	m, dir, u := shared(t)
	f := join(dir, "f")
	if isRoot() {
		write(t, f, "root's")
		require.NoError(t, os.Chmod(f, 0o600))
		u.refused(t, syscall.EACCES, "cat "+f)
		u.refused(t, syscall.EACCES, "echo x >> "+f)
		u.refused(t, syscall.EPERM, "chmod 644 "+f)
		u.refused(t, syscall.EPERM, "chown nobody "+f)
		u.refused(t, syscall.EACCES, "touch "+join(m.dir, "g"))
		require.NoError(t, syscall.Chmod(dir, 0o1777))
		u.refused(t, syscall.EPERM, "rm -f "+f)
		u.refused(t, syscall.EPERM, fmt.Sprintf("mv -f %s %s.new", f, f))
		require.NoError(t, syscall.Chmod(dir, 0o777))
		u.must(t, "rm -f "+f)
		return
	}
	write(t, f, "mine")
	require.NoError(t, os.Chmod(f, 0))
	u.refused(t, syscall.EACCES, "cat "+f)
	require.NoError(t, os.Chmod(dir, 0o500))
	u.refused(t, syscall.EACCES, "touch "+join(dir, "g"))
	require.NoError(t, os.Chmod(dir, 0o700))
}

func TestPosixChmodByANonMemberClearsSetGID(t *testing.T) {
	_, dir, u := shared(t)
	u.must(t, "cd "+dir+"; touch f; chmod 2755 f")
	require.EqualValues(t, 0o2755, lstat(t, join(dir, "f")).Mode&0o7777, "of the group")
	if isRoot() {
		require.NoError(t, os.Chown(join(dir, "f"), int(u.uid), 4242))
		u.must(t, "chmod 2755 "+join(dir, "f"))
		require.EqualValues(t, 0o755, lstat(t, join(dir, "f")).Mode&0o7777, "not of the group")
	}
}

// TestPosixSetIDBitsGo: a change by a program without privilege clears the set-id
// bits.
func TestPosixSetIDBitsGo(t *testing.T) {
	_, dir, u := shared(t)
	f := join(dir, "f")
	for change, script := range map[string]string{
		"write":            "printf x >> f",
		"direct write":     "dd if=/dev/zero of=f bs=4096 count=1 oflag=direct conv=notrunc status=none",
		"copied range":     "head -c 10000 /dev/zero > g; python3 -c 'import os; os.copy_file_range(os.open(\"g\", 0), os.open(\"f\", 1), 5000)'",
		"spliced":          "head -c 5000 /dev/zero | python3 -c 'import os; os.splice(0, os.open(\"f\", 1), 5000)'",
		"truncate":         "truncate -s 1 f",
		"open to truncate": ": > f",
		"fallocate":        "fallocate -l 8192 f",
		"punch":            "fallocate -p -o 0 -l 4096 f",
		"chown":            fmt.Sprintf("chown %d f", nobody.uid),
		"chgrp":            fmt.Sprintf("chgrp %d f", nobody.gid),
	} {
		for before, after := range map[uint32]uint32{0o6777: 0o777, 0o4666: 0o666, 0o2676: 0o676} {
			u.must(t, "cd "+dir+"; rm -f f; head -c 10000 /dev/zero > f")
			require.NoError(t, syscall.Chmod(f, before))
			require.Equal(t, before, lstat(t, f).Mode&0o7777)
			u.must(t, "cd "+dir+"; "+script)
			require.Equal(t, fmt.Sprintf("%o", after), fmt.Sprintf("%o", lstat(t, f).Mode&0o7777), "%s of %o", change, before)
		}
	}
	if isRoot() { // a privileged write keeps them, chown clears them
		require.NoError(t, syscall.Chmod(f, 0o6777))
		write(t, f, "by root")
		require.EqualValues(t, 0o6777, lstat(t, f).Mode&0o7777)
		require.NoError(t, os.Chown(f, 7, 7))
		require.EqualValues(t, 0o777, lstat(t, f).Mode&0o7777)
	}
}

func TestPosixCreateWithSetID(t *testing.T) {
	_, dir, _ := shared(t)
	fd, err := syscall.Open(join(dir, "f"), syscall.O_CREAT|syscall.O_WRONLY|syscall.O_CLOEXEC, 0o6755)
	require.NoError(t, err)
	require.NoError(t, syscall.Close(fd))
	require.EqualValues(t, 0o6755, lstat(t, join(dir, "f")).Mode&0o7777)
}

func TestPosixOthersNeedAllowOther(t *testing.T) {
	if !isRoot() {
		// fusermount3 itself decides, by /etc/fuse.conf.
		conf, err := os.ReadFile("/etc/fuse.conf")
		require.NoError(t, err)
		require.NotContains(t, strings.Split(string(conf), "\n"), "user_allow_other")
		return
	}
	m := newMount(t)
	require.Contains(t, m.mountinfo(t), "allow_other")
	nobody.must(t, "ls "+m.dir)
}
