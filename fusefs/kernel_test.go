//go:build linux

package fusefs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
)

// typesOn lists the types of the mounts on a directory, the topmost last.
func typesOn(t *testing.T, point string) (types []string) {
	list, err := procfs.Mounts()
	require.NoError(t, err)
	for _, m := range list {
		if m.Point == point {
			types = append(types, m.Type)
		}
	}
	return types
}

// A directory that is swapped for a symlink after it was opened is mounted on, and
// the symlink's target is not.
func TestMountPointSwappedForASymlink(t *testing.T) {
	if !isRoot() {
		t.Skip("fusermount3 makes the mounts of users, and resolves their paths itself")
	}
	top := tempDir(t)
	point, target, moved := filepath.Join(top, "mnt"), filepath.Join(top, "target"), filepath.Join(top, "moved")
	for _, dir := range []string{point, target} {
		require.NoError(t, os.Mkdir(dir, 0o755))
	}
	dir, err := fusefs.OpenMountPoint(point)
	require.NoError(t, err)
	defer dir.Close()
	require.NoError(t, os.Rename(point, moved))
	require.NoError(t, os.Symlink(target, point))
	_, err = fusefs.OpenMountPoint(point)
	require.Error(t, err)

	s := newStack(t, stackOptions{Point: dir})
	require.Empty(t, typesOn(t, target))
	require.Equal(t, []string{fusefs.FSType}, typesOn(t, moved))
	m, err := fusefs.Current(s.Mount.Mounted())
	require.NoError(t, err)
	require.Equal(t, moved, m.Point)
	require.NoError(t, fusefs.Unmount(s.Mount.Mounted(), false))
	require.Empty(t, typesOn(t, moved))
	require.ErrorIs(t, fusefs.Unmount(s.Mount.Mounted(), false), fusefs.ErrNotMounted)
	_, err = fusefs.Current(s.Mount.Mounted())
	require.ErrorIs(t, err, fusefs.ErrNotMounted)
}

// Neither way of unmounting takes what lies on the mount in its place.
func TestUnmountLeavesACoverAlone(t *testing.T) {
	if !isRoot() {
		t.Skip("only root mounts a tmpfs")
	}
	s := newStack(t, stackOptions{})
	m := s.Mount.Mounted()
	require.NoError(t, unix.Mount("cover", s.Dir, "tmpfs", 0, ""))
	for _, detach := range []bool{false, true} {
		var covered *fusefs.CoveredError
		require.ErrorAs(t, fusefs.Unmount(m, detach), &covered)
		require.Equal(t, "cover", covered.By.Source)
		require.Equal(t, []string{fusefs.FSType, "tmpfs"}, typesOn(t, s.Dir))
	}
	require.NoError(t, unix.Unmount(s.Dir, 0))
}
