//go:build linux

package fusefs_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func getxattr(t *testing.T, name, attr string) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(name, attr, buf)
	require.NoError(t, err, attr)
	return string(buf[:n])
}

func listxattr(t *testing.T, name string) []string {
	t.Helper()
	size, err := unix.Llistxattr(name, nil)
	require.NoError(t, err)
	buf := make([]byte, size)
	n, err := unix.Llistxattr(name, buf)
	require.NoError(t, err)
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
}

func TestAttrsOfOthersGoToTheBackingFile(t *testing.T) {
	m := newMount(t)
	f := join(m.dir, "f")
	write(t, f, "x")
	require.NoError(t, unix.Setxattr(f, "user.colour", []byte("blue"), unix.XATTR_CREATE))
	require.ErrorIs(t, unix.Setxattr(f, "user.colour", nil, unix.XATTR_CREATE), syscall.EEXIST)
	require.Equal(t, "blue", getxattr(t, join(m.tree, "f"), "user.colour"))
	require.Equal(t, "blue", getxattr(t, f, "user.colour"))
	require.Contains(t, listxattr(t, f), "user.colour")
	_, err := unix.Getxattr(f, "user.colour", make([]byte, 2))
	require.ErrorIs(t, err, syscall.ERANGE)
	require.NoError(t, unix.Removexattr(f, "user.colour"))
	require.ErrorIs(t, unix.Removexattr(f, "user.colour"), syscall.ENODATA)
}

func TestAttrsOfOurs(t *testing.T) {
	m := newMount(t)
	f, dir := join(m.dir, "f.jsonl"), join(m.dir, "d")
	write(t, f, "x")
	require.NoError(t, os.Mkdir(dir, 0o755))

	require.NotEmpty(t, getxattr(t, f, "user.uploadfs.state"))
	require.Equal(t, "text/jsonl", getxattr(t, f, "user.uploadfs.mime_type"))
	require.Equal(t, "user_data", getxattr(t, f, "user.uploadfs.purpose"))
	list := listxattr(t, f)
	for _, name := range []string{"state", "mime_type", "purpose"} {
		require.Contains(t, list, "user.uploadfs."+name)
	}
	require.NotContains(t, list, "user.uploadfs.size_hint", "it has no value")
	require.NotContains(t, listxattr(t, dir), "user.uploadfs.state")
	_, err := unix.Getxattr(dir, "user.uploadfs.state", nil)
	require.ErrorIs(t, err, syscall.ENODATA)

	for _, name := range []string{"state", "file_id", "part.0", "nonsense"} {
		attr := "user.uploadfs." + name
		require.ErrorIs(t, unix.Setxattr(f, attr, []byte("x"), 0), syscall.ENOTSUP, name)
		require.NoError(t, unix.Removexattr(f, attr), name)
	}
	require.ErrorIs(t, unix.Setxattr(dir, "user.uploadfs.size_hint", []byte("1"), 0), syscall.ENOTSUP)
	require.ErrorIs(t, unix.Setxattr(f, "user.uploadfs.purpose", []byte("fun"), 0), syscall.EINVAL)
}

func TestAttrsWritable(t *testing.T) {
	m := newMount(t)
	dir, f := join(m.dir, "d"), join(m.dir, "d", "f")
	const attr = "user.uploadfs.purpose"
	require.NoError(t, os.Mkdir(dir, 0o755))
	write(t, f, "x")

	require.NoError(t, unix.Setxattr(dir, attr, []byte("batch"), 0))
	require.Equal(t, "batch", getxattr(t, f, attr), "inherited")
	require.NoError(t, unix.Setxattr(f, attr, []byte("evals"), unix.XATTR_REPLACE))
	require.Equal(t, "evals", getxattr(t, f, attr))
	require.Equal(t, "evals", getxattr(t, join(m.tree, "d", "f"), attr))
	count := 0
	for _, name := range listxattr(t, f) {
		if name == attr {
			count++
		}
	}
	require.Equal(t, 1, count)
	require.NoError(t, unix.Removexattr(f, attr))
	require.NoError(t, unix.Removexattr(f, attr))
	require.Equal(t, "batch", getxattr(t, f, attr))
	require.NoError(t, os.Rename(dir, dir+"2"))
	require.Equal(t, "batch", getxattr(t, join(dir+"2", "f"), attr))
}

func TestAttrsCopiedQuietly(t *testing.T) {
	m := newMount(t)
	write(t, join(m.dir, "f"), "x")
	require.NoError(t, unix.Setxattr(join(m.dir, "f"), "user.colour", []byte("blue"), 0))
	require.Empty(t, (*user)(nil).must(t, "cd "+m.dir+"; cp -a f g; mv g "+join(m.dir, "h")))
	require.Equal(t, "blue", getxattr(t, join(m.dir, "h"), "user.colour"))
}

// TestAttrsPrivileged: the daemon may be root, its callers are not.
func TestAttrsPrivileged(t *testing.T) {
	m, dir, u := shared(t)
	f := join(dir, "f")
	u.must(t, "touch "+f)
	acl := "0x0200000001000700ffffffff04000700ffffffff20000700ffffffff"
	capability := "0x0100000200200000000000000000000000000000" // cap_net_raw=p
	for _, attr := range []string{"trusted.x", "security.x", "security.capability"} {
		u.refused(t, syscall.EPERM, "setfattr -n "+attr+" -v "+capability+" "+f)
	}
	u.refused(t, syscall.EOPNOTSUPP, "setfattr -n system.posix_acl_access -v "+acl+" "+f)
	require.Empty(t, listxattr(t, join(m.tree, "pub", "f")))
	if isRoot() {
		require.NoError(t, unix.Setxattr(f, "trusted.x", []byte("y"), 0))
		require.Equal(t, "y", getxattr(t, join(m.tree, "pub", "f"), "trusted.x"))
		write(t, join(dir, "root"), "x")
		u.refused(t, syscall.EACCES, "setfattr -n user.x -v y "+join(dir, "root"))
		u.refused(t, syscall.EACCES, "setfattr -n user.uploadfs.purpose -v batch "+join(dir, "root"))
	}
}

func TestAttrsOfSymlinks(t *testing.T) {
	m := newMount(t)
	l := join(m.dir, "l")
	write(t, join(m.dir, "f"), "x")
	require.NoError(t, os.Symlink("f", l))
	require.ErrorIs(t, unix.Lsetxattr(l, "user.uploadfs.purpose", []byte("batch"), 0), syscall.EPERM)
	require.Empty(t, listxattr(t, l))
	if isRoot() { // of the link itself, not of what it leads to
		require.NoError(t, unix.Lsetxattr(l, "trusted.x", []byte("y"), 0))
		require.Equal(t, "y", getxattr(t, l, "trusted.x"))
		require.NotContains(t, listxattr(t, join(m.dir, "f")), "trusted.x")
	}
}
