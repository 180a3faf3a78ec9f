package procfs

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseMounts(t *testing.T) {
	const lines = `27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
42 27 0:39 /sub/dir /home/u/my\040up\134\012\011\043x rw,nosuid shared:7 master:2 - fuse.uploadfs /var/lib/uploadfs/a\040b rw,user_id=1000,group_id=0
43 27 0:40 / /mnt rw - tmpfs  rw
`
	list, err := parseMounts(strings.NewReader(lines))
	require.NoError(t, err)
	require.Equal(t, []Mount{
		{ID: 27, Parent: 1, Device: "254:0", Root: "/", Point: "/", Type: "ext4", Source: "/dev/vda", Shared: true, Owner: -1},
		{ID: 42, Parent: 27, Device: "0:39", Root: "/sub/dir", Point: "/home/u/my up\\\n\t#x", Type: "fuse.uploadfs", Source: "/var/lib/uploadfs/a b", Shared: true, Owner: 1000},
		{ID: 43, Parent: 27, Device: "0:40", Root: "/", Point: "/mnt", Type: "tmpfs", Owner: -1},
	}, list)

	_, err = parseMounts(strings.NewReader("1 2 3\n"))
	require.ErrorContains(t, err, "mountinfo: ")
}

// TestMountsOfThisMachine compares the two lists of one namespace.
func TestMountsOfThisMachine(t *testing.T) {
	all, err := Mounts()
	require.NoError(t, err)
	devices, err := MountDevices(os.Getpid())
	require.NoError(t, err)
	require.Len(t, devices, len(all))
	proc := false
	for _, m := range all {
		require.Equal(t, m.Device, devices[m.ID])
		proc = proc || m.Point == "/proc" && m.Type == "proc"
	}
	require.True(t, proc, "the list was read from there")
}
