package procfs

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMapsToWrite looks for each kind of mapping in this process, through the kernel's
// query and in its text.
func TestMapsToWrite(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name        string
		prot, flags int
		want        bool
	}{
		{"shared to write", unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED, true},
		{"shared to write only", unix.PROT_WRITE, unix.MAP_SHARED, true},
		{"shared to read", unix.PROT_READ, unix.MAP_SHARED, false},
		{"private", unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := os.CreateTemp(dir, "")
			require.NoError(t, err)
			require.NoError(t, f.Truncate(8192))
			var st unix.Stat_t
			require.NoError(t, unix.Fstat(int(f.Fd()), &st))
			device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
			look := func() []bool {
				maps, err := os.Open("/proc/self/maps")
				require.NoError(t, err)
				defer maps.Close()
				text, err := scanMaps(maps, device, st.Ino)
				require.NoError(t, err)
				either, err := MapsToWrite(os.Getpid(), device, st.Ino)
				require.NoError(t, err)
				found := []bool{text, either}
				if asked, err := queryMaps(maps, device, st.Ino); err != unix.ENOTTY {
					require.NoError(t, err)
					found = append(found, asked)
				}
				return found
			}
			require.NotContains(t, look(), true, "it is not mapped")
			mem, err := unix.Mmap(int(f.Fd()), 4096, 4096, c.prot, c.flags)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.NotContains(t, look(), !c.want)
			other, err := MapsToWrite(os.Getpid(), "0:1", st.Ino)
			require.NoError(t, err)
			require.False(t, other, "the same number on another device")
			require.NoError(t, unix.Munmap(mem))
			require.NotContains(t, look(), true, "it is not mapped any more")
		})
	}
}

// TestScanMapsOfLongPaths: a path is no mapping, however long it is and whatever is in it.
func TestScanMapsOfLongPaths(t *testing.T) {
	path := "/" + strings.Repeat("d", 4096-len("7f0000000000-7f0000001000 rw-p 00000000 fe:01 5 ")) +
		"7f0000000000-7f0000001000 rw-s 00000000 fe:01 77 name"
	line := "7f0000000000-7f0000001000 %s 00000000 fe:01 %d " + path + "\n"
	text := fmt.Sprintf(line, "rw-p", 5)
	found, err := scanMaps(strings.NewReader(text), "254:1", 77)
	require.NoError(t, err)
	require.False(t, found)
	found, err = scanMaps(strings.NewReader(text+fmt.Sprintf(line, "rw-s", 77)+text), "254:1", 77)
	require.NoError(t, err)
	require.True(t, found)
}

// TestMapsOfOthers: a process that has ended maps nothing, and one that may not be
// looked at is unknown.
func TestMapsOfOthers(t *testing.T) {
	zombie := exec.Command("true")
	require.NoError(t, zombie.Start())
	require.NoError(t, unix.Waitid(unix.P_PID, zombie.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
	found, err := MapsToWrite(zombie.Process.Pid, "0:1", 1)
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, zombie.Wait())
	found, err = MapsToWrite(zombie.Process.Pid, "0:1", 1)
	require.NoError(t, err)
	require.False(t, found)
	if os.Geteuid() != 0 {
		_, err = MapsToWrite(1, "0:1", 1)
		require.ErrorIs(t, err, os.ErrPermission)
	}
}
