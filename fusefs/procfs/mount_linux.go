package procfs

import (
	"fmt"
	"io"
	"os"

	"github.com/moby/sys/mountinfo"
)

// MountDevices maps the IDs of the mounts that the process pid sees to their
// devices, "major:minor". A mount that was detached is in no list.
func MountDevices(pid int) (map[int]string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mounts, err := parseMounts(f)
	devices := make(map[int]string, len(mounts))
	for _, m := range mounts {
		devices[m.ID] = m.Device
	}
	return devices, err
}

// parseMounts reads the format of proc_pid_mountinfo(5).
func parseMounts(r io.Reader) ([]Mount, error) {
	return list(mountinfo.GetMountsFromReader(r, nil))
}
