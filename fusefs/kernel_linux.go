package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs/procfs"
)

// A mount is known here by its identity, not by a path: a path may come to name
// another directory, and another mount may cover ours.

// fuseDevice is the kernel's side of every FUSE mount.
const fuseDevice = "/dev/fuse"

// attempts bounds how often a path is resolved that other programs keep renaming.
const attempts = 10

// OpenMountPoint opens a directory to mount on. path is absolute and free of
// symlinks, and is resolved as it stands: a symlink in it is an error now.
//
// With O_DIRECTORY the kernel would trigger an automount, as of systemd's, that waits
// for this very mount.
func OpenMountPoint(path string) (*os.File, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// Before Linux 5.6, and under seccomp filters that do not know openat2.
		fd, err = unix.Open(path, flags, 0)
		if err == nil {
			if real, linkErr := os.Readlink(descriptorPath(fd)); linkErr != nil || real != path {
				unix.Close(fd)
				err = unix.ELOOP
			}
		}
	}
	if err == nil {
		if err = checkDirectory(fd); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// checkDirectory says of an open file what open(2) with O_DIRECTORY and O_NOFOLLOW does.
func checkDirectory(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return nil
	case unix.S_IFLNK:
		return unix.ELOOP
	}
	return unix.ENOTDIR
}

// descriptorPath leads to an open file of this process, whatever its names are.
func descriptorPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// attach mounts on an opened directory with mount(2) and returns the descriptor of
// the FUSE connection. unix.EPERM means that this process may not.
func attach(dir *os.File, o *fuse.MountOptions) (fd int, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return -1, os.NewSyscallError("fstat", err)
	}
	fd, err = unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: fuseDevice, Err: err}
	}
	flags, data := mountData(o.Options)
	data = append(data,
		fmt.Sprintf("fd=%d", fd),
		fmt.Sprintf("rootmode=%o", st.Mode&unix.S_IFMT),
		fmt.Sprintf("user_id=%d", os.Geteuid()),
		fmt.Sprintf("group_id=%d", os.Getegid()),
		fmt.Sprintf("max_read=%d", o.MaxWrite),
	)
	err = unix.Mount(o.FsName, descriptorPath(int(dir.Fd())), FSType, flags, strings.Join(data, ","))
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("mount", err)
	}
	return fd, nil
}

// mountData splits the options of mount(8)'s -o into the flags of mount(2) and what
// the kernel's FUSE reads itself. The later of two that contradict holds.
func mountData(options []string) (flags uintptr, data []string) {
	flags = unix.MS_NOSUID | unix.MS_NODEV
	for _, o := range options {
		switch o {
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "suid":
			flags &^= unix.MS_NOSUID
		case "nodev":
			flags |= unix.MS_NODEV
		case "dev":
			flags &^= unix.MS_NODEV
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "exec":
			flags &^= unix.MS_NOEXEC
		case "ro":
			flags |= unix.MS_RDONLY
		case "rw":
			flags &^= unix.MS_RDONLY
		default:
			data = append(data, o)
		}
	}
	return flags, data
}

// identify finds our mount on an opened directory without touching the mount. Only
// one mount has this parent and this point; one that came before ours has ours on
// top of it, and then there is none.
func identify(dir *os.File) (procfs.Mount, error) {
	under, err := procfs.ReadDescriptor(os.Getpid(), int(dir.Fd()))
	if err != nil {
		return procfs.Mount{}, err
	}
	for range attempts {
		point, err := os.Readlink(descriptorPath(int(dir.Fd())))
		if err != nil {
			return procfs.Mount{}, err
		}
		mounts, err := procfs.Mounts()
		if err != nil {
			return procfs.Mount{}, err
		}
		for _, m := range mounts {
			if m.Parent == under.MountID && m.Point == point && m.Type == FSType && m.Owner == os.Geteuid() {
				return m, nil
			}
		}
	}
	return procfs.Mount{}, fmt.Errorf("%s is not in the list of mounts", dir.Name())
}

// Current returns a mount as it stands now, wherever its point has been moved to;
// [ErrNotMounted] if it is gone.
func Current(m procfs.Mount) (procfs.Mount, error) {
	now, _, err := current(m)
	return now, err
}

// current is [Current], and the mount that covers m, if one does.
func current(m procfs.Mount) (now procfs.Mount, cover *procfs.Mount, err error) {
	mounts, err := procfs.Mounts()
	if err != nil {
		return procfs.Mount{}, nil, err
	}
	err = ErrNotMounted
	for _, other := range mounts {
		if other.Same(m) {
			now, err = other, nil
		}
	}
	for _, other := range mounts {
		if err == nil && other.Parent == now.ID && other.ID != now.ID && other.Point == now.Point {
			cover = &other
		}
	}
	return now, cover, err
}

// Unmount has the kernel give a mount up, and no other one in its place. Without
// detach a mount in use stays as it is, with unix.EBUSY. With detach the mount
// leaves the namespace at once, and what is open on it works until it is closed or
// the daemon ends. It fails with [ErrNotMounted] and [*CoveredError].
func Unmount(m procfs.Mount, detach bool) error {
	for range attempts {
		now, cover, err := current(m)
		switch {
		case err != nil:
			return err
		case cover != nil:
			return &CoveredError{*cover}
		}
		err = unmountAt(now, detach)
		if !errors.Is(err, errElsewhere) {
			return err
		}
	}
	return errElsewhere
}

// errElsewhere means that a mount's path was renamed, or covered, in between.
var errElsewhere = errors.New("the mount point's path changes all the time: try again")

// unmountAt unmounts m if it is what its path leads to.
func unmountAt(m procfs.Mount, detach bool) error {
	dir, err := OpenMountPoint(filepath.Dir(m.Point))
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, fs.ErrNotExist) {
			return errElsewhere
		}
		return err
	}
	defer dir.Close()
	name := filepath.Base(m.Point)
	// O_PATH reaches the mount's root without a request to its daemon.
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errElsewhere
		}
		return &fs.PathError{Op: "open", Path: m.Point, Err: err}
	}
	at, err := procfs.ReadDescriptor(os.Getpid(), fd)
	unix.Close(fd) // it would keep the mount busy
	switch {
	case err != nil:
		return err
	case at.MountID != m.ID:
		return errElsewhere
	}
	flags, args := unix.UMOUNT_NOFOLLOW, []string{"-u"}
	if detach {
		flags, args = flags|unix.MNT_DETACH, append(args, "-z")
	}
	err = unix.Unmount(descriptorPath(int(dir.Fd()))+"/"+name, flags)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return unmountForUser(append(args, m.Point))
}

// unmountForUser calls the set-uid helper, which checks that the mount is the user's.
func unmountForUser(args []string) error {
	helper, err := Fusermount()
	if err != nil {
		return errors.New("fusermount3 is missing: install the package fuse3")
	}
	var said bytes.Buffer
	cmd := exec.Command(helper, args...)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(said.String())
		if strings.Contains(strings.ToLower(text), "busy") {
			return unix.EBUSY
		}
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

// Fusermount finds the set-uid helper that mounts for users. /usr/bin and /bin are
// where it is when PATH says nothing.
func Fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "/usr/bin/fusermount3", "/bin/fusermount3", "fusermount", "/usr/bin/fusermount", "/bin/fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}
