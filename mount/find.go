package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
)

// Find returns the mount of ours on a directory, without touching the mount. A
// daemon that has been unmounted and still drains is found too, if its state
// directory is the mount point's own.
func Find(mountPoint string) (Entry, error) {
	list, err := procfs.Mounts()
	if err != nil {
		return Entry{}, err
	}
	point, err := resolve(mountPoint, list)
	if err != nil {
		return Entry{}, fmt.Errorf("mount point: %w", err)
	}
	m, mounted := topmost(list, point)
	if mounted && m.Type == fusefs.FSType {
		return m, nil
	}
	for _, below := range list {
		if mounted && below.Type == fusefs.FSType && below.Point == point {
			return Entry{}, fmt.Errorf("%s: %w", Printable(point), &fusefs.CoveredError{By: m})
		}
	}
	if dir, err := DefaultStateDir(point); err == nil {
		m := Entry{Root: "/", Point: point, Type: fusefs.FSType, Source: dir, Owner: os.Geteuid()}
		if _, was := holder(filepath.Join(dir, lockFile)); was == point && reachable(m) {
			return m, nil
		}
	}
	return Entry{}, fmt.Errorf("%s is no uploadfs mount: see uploadfs status for those there are", Printable(mountPoint))
}

// Alive reports whether a mount of ours is on a directory whose daemon answers.
func Alive(mountPoint string) bool {
	m, err := Find(mountPoint)
	return err == nil && m.Device != "" && reachable(m)
}

// FindAll returns all mounts of ours, each filesystem once.
func FindAll() ([]Entry, error) {
	list, err := procfs.Mounts()
	if err != nil {
		return nil, err
	}
	var ours []Entry
	seen := make(map[string]bool)
	for _, m := range list {
		if m.Type == fusefs.FSType && !seen[m.Device] {
			seen[m.Device] = true
			ours = append(ours, m)
		}
	}
	return ours, nil
}

// FindFile returns the mount of ours that a file lies in, and the file's path
// below it. The file itself need not exist any more.
func FindFile(p string) (m Entry, below string, err error) {
	list, err := procfs.Mounts()
	if err != nil {
		return Entry{}, "", err
	}
	real, err := resolve(p, list)
	if err != nil {
		return Entry{}, "", err
	}
	m, below, ok := holding(list, real)
	if !ok {
		return Entry{}, "", fmt.Errorf("%s is not on an uploadfs mount", Printable(p))
	}
	return m, below, nil
}

// Unmount drains and ends the mount on a directory and waits until its daemon is
// gone. A mount whose daemon was killed is detached; gone is true then, and what
// it had pending goes on at the next mount.
func Unmount(ctx context.Context, mountPoint string, o UnmountOptions) (out Outcome, gone bool, err error) {
	m, err := Find(mountPoint)
	if err != nil {
		return Outcome{}, false, err
	}
	if o.Force {
		out, err = forceEnd(ctx, m)
	} else {
		out, err = NewClient(m).Unmount(ctx, o)
	}
	switch {
	case errors.Is(err, syscall.EBUSY):
		return out, false, fmt.Errorf("%s is busy: close the files and leave the directories that are open on it, then try again, or give --lazy",
			Printable(m.Point))
	case errors.Is(err, ErrNoDaemon):
		cleared, err := clearPoint(m.Point)
		alive := (*aliveError)(nil)
		switch {
		case errors.As(err, &alive) && (o.Lazy || o.Force):
			err = fusefs.Unmount(m, true) // the daemon sees that, and ends by itself
		case alive != nil:
			err = fmt.Errorf("the daemon of %s is alive and cannot be reached in its state directory %s, which may have been moved or removed: unmount with fusermount3 -u, as root with umount, and it will end",
				Printable(m.Point), Printable(m.Source))
		}
		return Outcome{}, cleared, err
	case err != nil:
		return out, false, fmt.Errorf("unmount %s: %w", Printable(m.Point), err)
	}
	return out, false, nil
}

// forceTimeout is how long a daemon may take to answer that it ends.
const forceTimeout = 5 * time.Second

// errForced is the cause of the end of a call to a daemon that does not answer.
var errForced = errors.New("no answer")

// forceEnd ends a mount whether it is in use or not, and waits for no upload. A daemon
// that does not answer is killed, and its mount detached.
func forceEnd(ctx context.Context, m Entry) (Outcome, error) {
	asking, cancel := context.WithTimeoutCause(ctx, forceTimeout, errForced)
	defer cancel()
	client := NewClient(m)
	out, err := client.Unmount(asking, UnmountOptions{Lazy: true, Timeout: new(time.Duration)})
	if !errors.Is(err, errForced) {
		return out, err
	}
	if err := client.kill(ctx); err != nil {
		return Outcome{}, fmt.Errorf("kill the daemon: %w", err)
	}
	return Outcome{}, ErrNoDaemon
}

// aliveError says that a mount of ours is there, and its daemon too.
type aliveError struct{ Entry }

func (e *aliveError) Error() string {
	return fmt.Sprintf("%s is already mounted: see it with uploadfs status, end it with uploadfs unmount", Printable(e.Point))
}
