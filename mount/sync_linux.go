package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
)

// syncTimeout bounds how long the end waits for the kernel's dirty pages.
const syncTimeout = 10 * time.Second

// SyncCommand is the hidden subcommand that calls [SyncMount] with its argument.
const SyncCommand = "sync-mount"

// syncMount has the kernel hand over what it has not yet written to the mount.
// Another process asks for it: this one would wait for itself. That process is this
// program, since a machine may have no other one.
func syncMount(m Entry) error {
	ctx, cancel := context.WithTimeout(context.Background(), syncTimeout)
	defer cancel()
	stdin, end, err := os.Pipe() // exec.Cmd would open /dev/null, which may not be there
	if err != nil {
		return err
	}
	defer stdin.Close()
	end.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", SyncCommand, m.Device)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("sync: %w: %s", errors.Join(err, context.Cause(ctx)), bytes.TrimSpace(out))
	}
	return nil
}

// SyncMount has the kernel hand over all dirty pages of the FUSE filesystem device,
// "major:minor". The filesystem's own daemon must not call it.
//
// Two steps are needed. syncfs(2) makes the kernel begin with everything, mapped
// files among it, but on FUSE it does not wait for the end. fsync(2) does, and is
// called for each file that a process, if it may be observed, has open for writing.
func SyncMount(device string) error {
	files := openForWriting(device)
	err := syncAll(device, files)
	for _, file := range files {
		if one := syncWith(file, unix.Fsync); !errors.Is(one, fs.ErrNotExist) { // else it has been closed
			err = errors.Join(err, one)
		}
	}
	return err
}

// syncAll calls syncfs through the root of the filesystem's first mount that is not
// covered, or through one of its open files.
func syncAll(device string, files []string) error {
	mounts, err := procfs.Mounts()
	if err != nil {
		return err
	}
	err = fmt.Errorf("%s: %w", device, fusefs.ErrNotMounted)
	for _, m := range mounts {
		if top, _ := topmost(mounts, m.Point); m.Device != device || !top.Same(m) {
			continue
		}
		if err = syncWith(m.Point, unix.Syncfs); err == nil {
			return nil
		}
	}
	for _, file := range files {
		if syncWith(file, unix.Syncfs) == nil {
			return nil
		}
	}
	return err
}

// syncWith opens a file and calls sync with its descriptor. A file that may only be
// written is opened so, as sync(1) does.
func syncWith(name string, sync func(fd int) error) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if err := sync(fd); err != nil {
		return &os.PathError{Op: "sync", Path: name, Err: err}
	}
	return nil
}

// openForWriting lists the files of a filesystem that processes have open for
// writing, each by a descriptor's path in /proc. A file without a name has nothing to
// keep. It reads /proc only, and so does not touch the filesystem.
func openForWriting(device string) []string {
	pids, err := procfs.Processes()
	if err != nil {
		return nil
	}
	var list []string
	seen := make(map[string]bool)
	for _, pid := range pids {
		all, _ := procfs.Descriptors(pid) // none of a process that is gone, or of another user's
		var devices map[int]string
		for _, d := range all {
			if !d.Writable() {
				continue
			}
			if devices == nil {
				if devices, err = procfs.MountDevices(pid); err != nil {
					break
				}
			}
			if devices[d.MountID] != device {
				continue
			}
			target, err := procfs.DescriptorTarget(pid, d.FD)
			if err != nil || seen[target] || strings.HasSuffix(target, " (deleted)") {
				continue
			}
			seen[target] = true
			list = append(list, procfs.DescriptorPath(pid, d.FD))
		}
	}
	return list
}
