//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cannotCutPower says why the power of a filesystem cannot be cut here; nil if it can.
func cannotCutPower() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can mount a filesystem whose power is cut")
	}
	for _, command := range []string{"mkfs.ext4", "losetup", "mount"} {
		if _, err := exec.LookPath(command); err != nil {
			return fmt.Errorf("a filesystem is needed whose power is cut: %w", err)
		}
	}
	if out, err := exec.Command("losetup", "--find").CombinedOutput(); err != nil {
		return fmt.Errorf("no loop device for a filesystem whose power is cut: %s", strings.TrimSpace(string(out)))
	}
	return nil
}

// namespaceEnv names the mount namespace that this program has made for itself.
const namespaceEnv = "UPLOADFS_TEST_SOAK_NAMESPACE"

func mountNamespace() (string, error) { return os.Readlink("/proc/thread-self/ns/mnt") }

// enterNamespace starts this program again in a mount namespace of its own, unless it
// is in one. There a file can take the place of the kernel's boot ID.
func enterNamespace() error {
	if inNamespace() == nil {
		return nil
	}
	runtime.LockOSThread() // until exec, which goes on with this thread's namespace
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a mount namespace of its own: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("a mount namespace of its own: %w", err)
	}
	if err := leaveOtherMounts(); err != nil {
		return err
	}
	name, err := mountNamespace()
	if err != nil {
		return err
	}
	environ := append(os.Environ(), namespaceEnv+"="+name)
	return fmt.Errorf("start again: %w", unix.Exec("/proc/self/exe", os.Args, environ))
}

// inNamespace returns an error where what is mounted would be seen by others.
func inNamespace() error {
	name, err := mountNamespace()
	if err == nil && os.Getenv(namespaceEnv) != name {
		err = errors.New("cutting the power needs a mount namespace of its own")
	}
	return err
}

// leaveOtherMounts gives up this namespace's copies of FUSE mounts. While a copy lasts,
// its daemon cannot see its mount end.
func leaveOtherMounts() error {
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(mounts)) {
		mount, kind, _ := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if !strings.HasPrefix(kind, "fuse") || len(fields) < 5 {
			continue
		}
		point := unescape.Replace(fields[4])
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s in the new namespace: %w", point, err)
		}
	}
	return nil
}

// disk is an ext4 filesystem whose power can be cut.
type disk struct {
	image, point string
	bootID       string // the file in the place of the kernel's
	boots        int
}

const kernelBootID = "/proc/sys/kernel/random/boot_id"

// ext4Shutdown is EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32): the ioctl that ends the
// filesystem as a power cut does.
const ext4Shutdown = 0x8004587d

// flavour is what the filesystem brings to the disk in the moment of its end.
type flavour int

const (
	everything  flavour = iota // EXT4_GOING_FLAGS_DEFAULT
	itsJournal                 // LOGFLUSH: names, sizes and times, but not all data
	nothing                    // NOLOGFLUSH
	allFlavours                // how many there are
)

func (f flavour) String() string {
	return [...]string{"everything", "the journal", "nothing"}[f]
}

// newDisk makes and mounts the filesystem, and takes the place of the boot ID.
func newDisk(dir string) (*disk, error) {
	if err := errors.Join(cannotCutPower(), inNamespace()); err != nil {
		return nil, err
	}
	d := &disk{image: filepath.Join(dir, "image"), point: filepath.Join(dir, "disk"), bootID: filepath.Join(dir, "boot_id")}
	if err := os.Mkdir(d.point, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(d.image, 512<<20); err != nil {
		return nil, err
	}
	if err := command("mkfs.ext4", "-q", "-F", d.image); err != nil {
		return nil, err
	}
	if err := d.newBoot(); err != nil {
		return nil, err
	}
	if err := unix.Mount(d.bootID, kernelBootID, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("a boot ID of its own: %w", err)
	}
	return d, d.mount()
}

// newBoot shows all programs another boot ID from now on.
func (d *disk) newBoot() error {
	d.boots++
	return os.WriteFile(d.bootID, fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", d.boots), 0o644)
}

func (d *disk) mount() error { return command("mount", "-o", "loop", d.image, d.point) }

// unmount ends the filesystem. The kernel may keep it busy for a while after the end of
// its last user.
func (d *disk) unmount() error {
	deadline := time.Now().Add(quiet)
	for {
		err := unix.Unmount(d.point, 0)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return wrap("unmount the disk", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// sync brings the whole filesystem to the disk.
func (d *disk) sync() error {
	dir, err := os.Open(d.point)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Syncfs(int(dir.Fd()))
}

// shutDown ends the filesystem. All use of it fails from now on.
func (d *disk) shutDown(f flavour) error {
	dir, err := os.Open(d.point)
	if err != nil {
		return err
	}
	defer dir.Close()
	return wrap("shut the filesystem down", unix.IoctlSetPointerInt(int(dir.Fd()), ext4Shutdown, int(f)))
}

// end takes away what newDisk has made.
func (d *disk) end() error {
	return errors.Join(d.unmount(), wrap("unmount the boot ID", unix.Unmount(kernelBootID, 0)))
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
