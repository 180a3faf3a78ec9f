package procfs

import (
	"fmt"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Mount is one mount of a mount namespace, as a line of
// proc_pid_mountinfo(5) describes it.
type Mount struct {
	ID     int    // the number that fdinfo calls mnt_id; used again after an unmount
	Device string // of the filesystem, "major:minor"
	Root   string // what of the filesystem is mounted: "/", or the source of a bind mount
	Point  string // where
	Type   string // such as ext4 or fuse.uploadfs
	Source string // what the mounting program gave
	Shared bool   // it has a peer group: other namespaces may have it too
}

// Mounts lists the mounts of this process's namespace in the kernel's order: of
// two on the same directory, the later one covers the earlier. On systems other
// than Linux the IDs are 0.
func Mounts() ([]Mount, error) { return list(mountinfo.GetMounts(nil)) }

func list(infos []*mountinfo.Info, err error) ([]Mount, error) {
	if err != nil {
		return nil, fmt.Errorf("mountinfo: %w", err)
	}
	mounts := make([]Mount, len(infos))
	for i, m := range infos {
		mounts[i] = Mount{
			ID:     m.ID,
			Device: fmt.Sprintf("%d:%d", m.Major, m.Minor),
			Root:   m.Root,
			Point:  m.Mountpoint,
			Type:   m.FSType,
			Source: m.Source,
			Shared: strings.Contains(m.Optional, "shared:"),
		}
	}
	return mounts, nil
}
