package mount

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// sample has two mounts on /mnt, a bind mount and a mount over part of another.
var sample = []Entry{
	{Root: "/", Point: "/proc", Type: "proc", Source: "proc"},
	{Root: "/", Point: "/", Type: "ext4", Source: "/dev/vda"},
	{Root: "/", Point: "/mnt", Type: "fuse.uploadfs", Source: "/s/1"},
	{Root: "/", Point: "/mnt", Type: "fuse.uploadfs", Source: "/s/2"},
	{Root: "/sub/dir", Point: "/bind", Type: "fuse.uploadfs", Source: "/s/2"},
	{Root: "/", Point: "/mnt/over", Type: "tmpfs", Source: "tmpfs"},
}

func TestTopmost(t *testing.T) {
	m, ok := topmost(sample, "/mnt")
	require.True(t, ok)
	require.Equal(t, "/s/2", m.Source, "the later mount covers the earlier")
	_, ok = topmost(sample, "/mnt/x")
	require.False(t, ok)
}

func TestHolding(t *testing.T) {
	for _, c := range []struct{ path, source, below string }{
		{"/mnt/a/b", "/s/2", "a/b"},
		{"/mnt", "/s/2", ""},
		{"/bind/f", "/s/2", "sub/dir/f"},
	} {
		m, below, ok := holding(sample, c.path)
		require.True(t, ok, c.path)
		require.Equal(t, c.source, m.Source)
		require.Equal(t, c.below, below)
	}
	for _, other := range []string{"/mntx/f", "/mnt/over/f", "/etc/passwd"} {
		_, _, ok := holding(sample, other)
		require.False(t, ok, other)
	}
}

func TestResolveStopsAtAMountPoint(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	real := filepath.Join(dir, "real")
	require.NoError(t, os.Mkdir(real, 0o700))
	require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink(filepath.Join(dir, "link"), filepath.Join(dir, "link2")))
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))

	for _, name := range []string{"real", "link", "link2", "link2/../real", "real/"} {
		p, err := resolve(filepath.Join(dir)+"/"+name, nil)
		require.NoError(t, err)
		require.Equal(t, real, p, name)
	}
	p, err := resolve(filepath.Join(dir, "link", "absent"), nil)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(real, "absent"), p)

	_, err = resolve(filepath.Join(dir, "loop"), nil)
	require.ErrorContains(t, err, "too many levels")

	// A symlink whose place has been taken by a mount is not looked at.
	p, err = resolve(filepath.Join(dir, "link"), []Entry{{Point: filepath.Join(dir, "link")}})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "link"), p)
}

func TestResolveAbsent(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "link")))
	p, err := resolveAbsent(filepath.Join(dir, "link", "a", "b"))
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "a", "b"), p)
}
