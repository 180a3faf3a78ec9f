package mount

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckFUSE(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "fuse")
	found := func() (string, error) { return "/bin/fusermount3", nil }
	missing := func() (string, error) { return "", errors.New("not there") }

	err := checkFUSE(device, 0, found)
	require.ErrorContains(t, err, "modprobe fuse")

	require.NoError(t, os.WriteFile(device, nil, 0o600))
	require.NoError(t, checkFUSE(device, 0, missing), "root needs no helper")
	require.NoError(t, checkFUSE(device, 1000, found))
	require.ErrorContains(t, checkFUSE(device, 1000, missing), "install the package fuse3")

	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	require.ErrorContains(t, checkFUSE(filepath.Join(dir, "d"), 0, found), "no FUSE here")
}

func TestCheckOptions(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "fuse.conf")
	require.NoError(t, checkOptions([]string{"allow_other"}, 0, conf))
	require.NoError(t, checkOptions([]string{"ro"}, 1000, conf))
	require.NoError(t, checkOptions([]string{"suid", "dev"}, 0, conf))
	require.ErrorContains(t, checkOptions([]string{"ro", "dev"}, 1000, conf), "-o dev is for root only")
	require.ErrorContains(t, checkOptions([]string{"allow_other"}, 1000, conf), "user_allow_other")
	require.NoError(t, os.WriteFile(conf, []byte("#user_allow_other\n"), 0o600))
	require.Error(t, checkOptions([]string{"allow_other"}, 1000, conf))
	require.NoError(t, os.WriteFile(conf, []byte("mount_max = 5\n user_allow_other\n"), 0o600))
	require.NoError(t, checkOptions([]string{"allow_other"}, 1000, conf))
}

func TestCheckPoint(t *testing.T) {
	dir := t.TempDir()
	d, err := openPoint(dir)
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, checkPoint(d))
	_, err = openPoint(filepath.Join(dir, "x"))
	require.ErrorContains(t, err, "create it with mkdir")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
	_, err = openPoint(filepath.Join(dir, "x"))
	require.ErrorContains(t, err, "not a directory")
	require.ErrorContains(t, checkPoint(d), "not empty")
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "link")))
	_, err = openPoint(filepath.Join(dir, "link"))
	require.Error(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	_, err = openPoint(filepath.Join(dir, "link", "sub"))
	require.ErrorContains(t, err, "symlink")
}

func TestClearPointLeavesOtherMountsAlone(t *testing.T) {
	detached, err := clearPoint("/proc")
	require.False(t, detached)
	require.ErrorContains(t, err, "already carries a mount (proc")
	detached, err = clearPoint(t.TempDir())
	require.NoError(t, err)
	require.False(t, detached)
}

func TestUnmountOfNothing(t *testing.T) {
	_, _, err := Unmount(t.Context(), t.TempDir(), UnmountOptions{})
	require.ErrorContains(t, err, "is no uploadfs mount")
	_, _, err = FindFile("/etc/passwd")
	require.ErrorContains(t, err, "is not on an uploadfs mount")
}

func TestDiskMeter(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600))
	require.NoError(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	require.NoError(t, err)
	require.NoError(t, sparse.Truncate(1<<30))
	require.NoError(t, sparse.Close())
	require.NoError(t, os.Symlink("/", filepath.Join(dir, "out")))

	m := diskMeter{dir: dir}
	d, err := m.read(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, d.Used, int64(1<<20))
	require.Less(t, d.Used, int64(2<<20), "a second name is no second file, and a hole no data")
	require.Positive(t, d.Free)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = (&diskMeter{dir: dir}).read(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
