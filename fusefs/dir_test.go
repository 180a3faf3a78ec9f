//go:build linux

package fusefs_test

import (
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func fillDir(t *testing.T, dir string, n int) []string {
	t.Helper()
	var list []string
	for i := range n {
		name := fmt.Sprintf("file-%06d", i)
		fd, err := unix.Open(join(dir, name), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		require.NoError(t, err)
		require.NoError(t, unix.Close(fd))
		list = append(list, name)
	}
	return list
}

func TestPosixLargeDirectory(t *testing.T) {
	m := newMount(t)
	entries := 10_000
	if fullMatrix() {
		entries = 100_000
	}
	want := fillDir(t, m.tree, entries)
	require.Equal(t, want, names(t, m.dir))
	out := (*user)(nil).must(t, "cd "+m.dir+"; ls -U | wc -l; ls -l file-0012* | grep -c '^-rw-r--r--'")
	require.Equal(t, fmt.Sprint(entries, "\n100"), out)
}

func TestPosixListingWhileDeleting(t *testing.T) {
	m := newMount(t)
	entries := 300 // more than one answer to the kernel holds
	if fullMatrix() {
		entries = 3000
	}
	want := fillDir(t, m.tree, entries)
	d, err := os.Open(m.dir)
	require.NoError(t, err)
	defer d.Close()
	var got []string
	for {
		list, err := d.Readdirnames(100)
		for _, name := range list {
			require.NoError(t, os.Remove(join(m.dir, name)))
		}
		got = append(got, list...)
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
	}
	slices.Sort(got)
	require.Equal(t, want, got)
	require.Empty(t, names(t, m.dir))
}

func TestPosixRewindSeesNewEntries(t *testing.T) {
	m := newMount(t)
	fillDir(t, m.tree, 300)
	d, err := os.Open(m.dir)
	require.NoError(t, err)
	defer d.Close()
	list, err := d.Readdirnames(-1)
	require.NoError(t, err)
	require.Len(t, list, 300)
	write(t, join(m.dir, "late"), "")
	_, err = d.Seek(0, io.SeekStart)
	require.NoError(t, err)
	list, err = d.Readdirnames(-1)
	require.NoError(t, err)
	require.Contains(t, list, "late")
	require.NoError(t, d.Sync())
}

func TestPosixRemovedDirectoryStaysOpen(t *testing.T) {
	m := newMount(t)
	dir := join(m.dir, "d")
	require.NoError(t, os.Mkdir(dir, 0o750))
	d, err := os.Open(dir)
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, os.Remove(dir))
	fi, err := d.Stat()
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o750, fi.Mode())
	_, err = unix.Openat(int(d.Fd()), "f", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	require.ErrorIs(t, err, unix.ENOENT)
}
