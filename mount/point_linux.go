package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
)

// statTimeout bounds how long a mount may take to answer one stat(2) before it
// counts as alive: a dead one answers at once.
const statTimeout = 2 * time.Second

// maxStacked bounds how many dead mounts on one directory are taken away.
const maxStacked = 16

// automount is the type of a mount that has the one on top of it made on first use, as
// systemd does for the option x-systemd.automount.
const automount = "autofs"

// clearPoint makes sure that nothing is mounted on the directory. Mounts of ours
// whose daemon was killed are detached: they answer everything with "Transport
// endpoint is not connected", and no program can use them.
func clearPoint(point string) (detached bool, err error) {
	for range maxStacked {
		list, err := procfs.Mounts()
		if err != nil {
			return detached, err
		}
		m, mounted := topmost(list, point)
		switch {
		case !mounted, m.Type == automount: // whose mount this one is
			return detached, nil
		case m.Type != fusefs.FSType:
			return detached, fmt.Errorf("%s already carries a mount (%s from %s): unmount that, or choose another directory",
				Printable(point), m.Type, Printable(m.Source))
		}
		dead, err := isDead(m)
		if err != nil {
			return detached, err
		}
		if !dead {
			return detached, &aliveError{m}
		}
		if err := fusefs.Unmount(m, true); err != nil {
			return detached, fmt.Errorf("%s carries a dead mount that cannot be detached: %w", Printable(point), err)
		}
		detached = true
	}
	return detached, fmt.Errorf("%s carries too many dead mounts: unmount them with umount -l", Printable(point))
}

// isDead reports whether the daemon of a mount of ours is gone. Only a mount
// whose daemon cannot be reached is touched, since stat(2) on a live one waits
// for its daemon.
func isDead(m Entry) (bool, error) {
	listens := make(chan bool, 1)
	go func() { // ends with the answer of the source's filesystem
		_, point := holder(filepath.Join(m.Source, lockFile))
		listens <- point == m.Point && reachable(m)
	}()
	select {
	case yes := <-listens:
		if yes {
			return false, nil
		}
	case <-time.After(dialTimeout):
	}
	answer := make(chan error, 1)
	go func() { // ends with the answer; a killed daemon's mount gives one at once
		var st unix.Statx_t
		// Without FORCE_SYNC the kernel may answer from its cache.
		answer <- unix.Statx(unix.AT_FDCWD, m.Point, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	}()
	select {
	case err := <-answer:
		switch {
		// The second is what a request gets that was waiting when the daemon died.
		case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ECONNABORTED):
			return true, nil
		case errors.Is(err, unix.EACCES):
			return false, fmt.Errorf("%s is already mounted by another user: choose another directory", Printable(m.Point))
		}
		return false, nil
	case <-time.After(statTimeout):
		return false, nil
	}
}

// openPoint opens the directory to mount on. From here on it is known by the
// descriptor: its path may come to lead elsewhere.
func openPoint(point string) (*os.File, error) {
	dir, err := fusefs.OpenMountPoint(point)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist: create it with mkdir", Printable(point))
	case errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s is not a directory: name one to mount on", Printable(point))
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s is being replaced by a symlink: name a directory to mount on", Printable(point))
	case err != nil:
		return nil, fmt.Errorf("mount point: %w", err)
	}
	return dir, nil
}

// checkPoint says what is wrong with a directory on which nothing is mounted.
func checkPoint(dir *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err == nil && st.Type == unix.AUTOFS_SUPER_MAGIC {
		return nil // it cannot be read before something is mounted on it
	}
	point, via := dir.Name(), fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	d, err := os.Open(via)
	if err != nil {
		return fmt.Errorf("mount point %s: %w", Printable(point), errors.Unwrap(err))
	}
	defer d.Close()
	if names, _ := d.Readdirnames(1); len(names) > 0 {
		return fmt.Errorf("%s is not empty, and a mount would hide what is in it: choose an empty directory", Printable(point))
	}
	// fusermount3 lets users mount only where they could have written.
	if os.Geteuid() != 0 && unix.Access(via, unix.W_OK) != nil {
		return fmt.Errorf("%s is not writable for you: choose a directory of your own", Printable(point))
	}
	return nil
}
