package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const sample = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
42 27 0:39 / /home/u/my\040up\134\012x rw,nosuid,nodev,relatime shared:7 master:2 - fuse.uploadfs /var/lib/uploadfs/a\040b rw,user_id=0
43 27 0:40 / /mnt rw - fuse.uploadfs /s/1 rw
44 27 0:41 / /mnt rw - fuse.uploadfs /s/2 rw
45 27 0:41 /sub/dir /bind rw - fuse.uploadfs /s/2 rw
46 44 0:42 / /mnt/over rw - tmpfs tmpfs rw
`

func TestParseEntries(t *testing.T) {
	list, err := parseEntries(strings.NewReader(sample))
	require.NoError(t, err)
	require.Len(t, list, 7)
	require.Equal(t, Entry{Root: "/", Point: "/home/u/my up\\\nx", Type: "fuse.uploadfs", Source: "/var/lib/uploadfs/a b"}, list[2])

	m, ok := topmost(list, "/mnt")
	require.True(t, ok)
	require.Equal(t, "/s/2", m.Source, "the later mount covers the earlier")
	_, ok = topmost(list, "/mnt/x")
	require.False(t, ok)

	_, err = parseEntries(strings.NewReader("1 2 3\n"))
	require.ErrorContains(t, err, "cannot read line")
}

func TestHolding(t *testing.T) {
	list, err := parseEntries(strings.NewReader(sample))
	require.NoError(t, err)
	for _, c := range []struct{ path, source, below string }{
		{"/mnt/a/b", "/s/2", "a/b"},
		{"/mnt", "/s/2", ""},
		{"/bind/f", "/s/2", "sub/dir/f"},
	} {
		m, below, ok := holding(list, c.path)
		require.True(t, ok, c.path)
		require.Equal(t, c.source, m.Source)
		require.Equal(t, c.below, below)
	}
	for _, other := range []string{"/mntx/f", "/mnt/over/f", "/etc/passwd"} {
		_, _, ok := holding(list, other)
		require.False(t, ok, other)
	}
}

func TestEntriesOfThisMachine(t *testing.T) {
	list, err := Entries()
	require.NoError(t, err)
	_, ok := topmost(list, "/proc")
	require.True(t, ok, "it was read from there")
}

func TestUnescapeOctal(t *testing.T) {
	for in, want := range map[string]string{
		`a\040b`: "a b", `\043`: "#", `a\`: `a\`, `a\04`: `a\04`, `a\9990`: `a\9990`, `\134040`: `\040`,
	} {
		require.Equal(t, want, unescapeOctal(in), in)
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
