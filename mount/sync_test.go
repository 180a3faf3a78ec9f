//go:build linux

package mount

import (
	"os"
	"path/filepath"
	"testing"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"

	"github.com/stretchr/testify/require"
)

func TestOpenForWriting(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	w, err := os.Create(at("written"))
	require.NoError(t, err)
	defer w.Close()
	again, err := os.OpenFile(at("written"), os.O_RDWR|os.O_APPEND, 0)
	require.NoError(t, err)
	defer again.Close()
	require.NoError(t, os.WriteFile(at("read"), nil, 0o600))
	r, err := os.Open(at("read"))
	require.NoError(t, err)
	defer r.Close()
	gone, err := os.Create(at("gone"))
	require.NoError(t, err)
	defer gone.Close()
	require.NoError(t, os.Remove(at("gone")))

	var mine []string
	for _, path := range openForWriting(deviceOf(t, w)) {
		if target, err := os.Readlink(path); err == nil && filepath.Dir(target) == dir {
			mine = append(mine, target)
		}
	}
	require.Equal(t, []string{at("written")}, mine)
	require.Empty(t, openForWriting("0:0"), "no filesystem has this number")
	require.NoError(t, SyncMount(deviceOf(t, w)))
	require.ErrorIs(t, SyncMount("0:0"), fusefs.ErrNotMounted)
}

// deviceOf is the device of an open file's filesystem, as the list of mounts has it.
func deviceOf(t *testing.T, f *os.File) string {
	d, err := procfs.ReadDescriptor(os.Getpid(), int(f.Fd()))
	require.NoError(t, err)
	devices, err := procfs.MountDevices(os.Getpid())
	require.NoError(t, err)
	require.NotEmpty(t, devices[d.MountID])
	return devices[d.MountID]
}
