package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

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
func Unmount(ctx context.Context, mountPoint string) (out Outcome, gone bool, err error) {
	m, err := Find(mountPoint)
	if err != nil {
		return Outcome{}, false, err
	}
	out, err = NewClient(m).Unmount(ctx)
	switch {
	case errors.Is(err, syscall.EBUSY):
		return out, false, fmt.Errorf("%s is busy: close the files and leave the directories that are open on it, then try again",
			Printable(m.Point))
	case errors.Is(err, ErrNoDaemon):
		cleared, err := clearPoint(m.Point)
		if alive := (*aliveError)(nil); errors.As(err, &alive) {
			err = fmt.Errorf("the daemon of %s is alive and cannot be reached in its state directory %s, which may have been moved or removed: unmount with fusermount3 -u, as root with umount, and it will end",
				Printable(m.Point), Printable(m.Source))
		}
		return Outcome{}, cleared, err
	case err != nil:
		return out, false, fmt.Errorf("unmount %s: %w", Printable(m.Point), err)
	}
	return out, false, nil
}

// aliveError says that a mount of ours is there, and its daemon too.
type aliveError struct{ Entry }

func (e *aliveError) Error() string {
	return fmt.Sprintf("%s is already mounted: see it with uploadfs status, end it with uploadfs unmount", Printable(e.Point))
}
