package mount

import (
	"context"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// diskFresh is how long a sum over the tree is shown again: a tree of many
// files takes longer to add up than `status --watch` waits.
const diskFresh = 5 * time.Second

// diskMeter adds up what a directory occupies. It may be used concurrently.
type diskMeter struct {
	dir string

	mu   sync.Mutex // guards the following, and lets one caller add up at a time
	used int64
	at   time.Time
}

// read gives the bytes that the tree occupies and those that are free beside it.
func (m *diskMeter) read(ctx context.Context) (Disk, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(m.dir, &st); err != nil {
		return Disk{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at.IsZero() || time.Since(m.at) > diskFresh {
		used, err := occupied(ctx, m.dir)
		if err != nil {
			return Disk{}, err
		}
		m.used, m.at = used, time.Now()
	}
	return Disk{Used: m.used, Free: int64(st.Bavail) * int64(st.Bsize)}, nil
}

// occupied is the space of all files below dir as du(1) counts it: blocks, not
// sizes, and a file with several names once. Names are resolved beneath dir, so
// that a directory swapped for a symlink does not lead out of it.
func occupied(ctx context.Context, dir string) (int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	type inode struct{ dev, ino uint64 }
	linked := make(map[inode]bool)
	var sum int64
	err = fs.WalkDir(root.FS(), ".", func(_ string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return nil // gone since, or not ours to read
		}
		fi, err := e.Info()
		if err != nil {
			return nil
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if st.Nlink > 1 && !fi.IsDir() {
			id := inode{uint64(st.Dev), st.Ino}
			if linked[id] {
				return nil
			}
			linked[id] = true
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}
