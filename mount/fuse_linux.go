package mount

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	fuseDevice = "/dev/fuse"      // the kernel's door
	fuseConf   = "/etc/fuse.conf" // what fusermount3 allows
)

// checkFUSE says why this user cannot mount on this machine.
func checkFUSE(device string, uid int, helper func() (string, error)) error {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no FUSE here (%s is missing): load the kernel module with modprobe fuse, or start the container with --device %s",
			device, device)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s cannot be opened by you (%w): have it opened to users with chmod 666 %s", device, err, device)
	case err != nil:
		return fmt.Errorf("no FUSE here (%s: %w): load the kernel module with modprobe fuse", device, err)
	}
	unix.Close(fd)
	if uid != 0 {
		if _, err := helper(); err != nil {
			return errors.New("fusermount3 is missing, and only root can mount without it: install the package fuse3")
		}
	}
	return nil
}

// fusermount finds the set-uid helper that mounts for users. /bin is where it is
// when PATH says nothing.
func fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

// checkOptions finds out beforehand what fusermount3 would refuse in the middle:
// users may open their mounts to others only where root has said so, and may
// never bring set-user-ID programs or devices into the machine.
func checkOptions(options []string, uid int, conf string) error {
	if uid == 0 {
		return nil
	}
	for _, o := range options {
		if o == "suid" || o == "dev" {
			return fmt.Errorf("-o %s is for root only: mount without it", o)
		}
	}
	if !slices.Contains(options, "allow_other") {
		return nil
	}
	b, err := os.ReadFile(conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return nil
		}
	}
	return fmt.Errorf("-o allow_other is not open to users: have root write user_allow_other into %s", conf)
}

// detach takes a mount out of the namespace at once; what is still open on it
// stays until it is closed or the daemon ends.
func detach(point string) error { return unmount(point, unix.MNT_DETACH, "-u", "-z") }

// unmountNow asks the kernel to give the mount up; EBUSY if anything is open on it.
func unmountNow(point string) error { return unmount(point, 0, "-u") }

// unmount uses the system call where it is allowed and the set-uid helper
// elsewhere. UMOUNT_NOFOLLOW: the path was resolved before, so a symlink in its
// place now is an attack.
func unmount(point string, flags int, args ...string) error {
	err := unix.Unmount(point, flags|unix.UMOUNT_NOFOLLOW)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	helper, err := fusermount()
	if err != nil {
		return errors.New("fusermount3 is missing: install the package fuse3")
	}
	var said bytes.Buffer
	cmd := exec.Command(helper, append(args, point)...)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(said.String())
		if strings.Contains(text, unix.EBUSY.Error()) || strings.Contains(strings.ToLower(text), "busy") {
			return unix.EBUSY
		}
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}
