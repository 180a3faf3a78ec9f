package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
