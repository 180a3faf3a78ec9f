package procfs

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Mount is one mount of a mount namespace, as a line of
// proc_pid_mountinfo(5) describes it.
type Mount struct {
	ID     int    // the number that fdinfo calls mnt_id; used again after an unmount
	Parent int    // the ID of the mount that Point lies in
	Device string // of the filesystem, "major:minor"
	Root   string // what of the filesystem is mounted: "/", or the source of a bind mount
	Point  string // where
	Type   string // such as ext4 or fuse.uploadfs
	Source string // what the mounting program gave
	Owner  int    // of a FUSE mount: the user who mounted it, as user_id= says; else -1
	Shared bool   // it has a peer group: other namespaces may have it too
}

// Same reports whether two entries are of one mount. An ID may be used again after
// an unmount, but not together with the device of a filesystem that is still there.
func (m Mount) Same(other Mount) bool { return m.ID == other.ID && m.Device == other.Device }

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
			Parent: m.Parent,
			Device: fmt.Sprintf("%d:%d", m.Major, m.Minor),
			Root:   m.Root,
			Point:  m.Mountpoint,
			Type:   m.FSType,
			Source: m.Source,
			Owner:  owner(m.VFSOptions),
			Shared: strings.Contains(m.Optional, "shared:"),
		}
	}
	return mounts, nil
}

// owner reads user_id= from the options of a FUSE filesystem; -1 without it.
func owner(options string) int {
	for o := range strings.SplitSeq(options, ",") {
		if text, ok := strings.CutPrefix(o, "user_id="); ok {
			if uid, err := strconv.Atoi(text); err == nil {
				return uid
			}
		}
	}
	return -1
}
