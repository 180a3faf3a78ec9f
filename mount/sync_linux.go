package mount

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"uploadfs/fusefs/procfs"
)

// syncTimeout bounds how long the end waits for the kernel's dirty pages.
const syncTimeout = 10 * time.Second

// syncMount has the kernel hand over what it has not yet written to the mount.
// Another process asks for it: this one would wait for itself.
//
// Two steps are needed. syncfs(2) makes the kernel begin with everything, mapped
// files among it, but on FUSE it does not wait for the end; fsync(2) does, and is
// asked for each file that a process we may look into has open for writing.
func syncMount(point string) error {
	ctx, cancel := context.WithTimeout(context.Background(), syncTimeout)
	defer cancel()
	sync := func(args ...string) error {
		out, err := exec.CommandContext(ctx, "sync", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("sync %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
		return nil
	}
	if err := sync("-f", point); err != nil {
		return err
	}
	for _, file := range openForWriting(point) {
		if err := sync(file); err != nil {
			return err
		}
	}
	return nil
}

// openForWriting lists the files below a mount point that processes have open for
// writing. It reads /proc only, and so does not touch the mount.
func openForWriting(point string) []string {
	var list []string
	seen := make(map[string]bool)
	pids, err := procfs.Processes()
	if err != nil {
		return nil
	}
	for _, pid := range pids {
		all, _ := procfs.Descriptors(pid) // gone, or not ours to see
		for _, d := range all {
			if !d.Writable() {
				continue
			}
			file, err := procfs.DescriptorTarget(pid, d.FD)
			if err != nil || seen[file] || !strings.HasPrefix(file, point+"/") || strings.HasSuffix(file, " (deleted)") {
				continue // closed, or with nothing to keep
			}
			seen[file] = true
			list = append(list, file)
		}
	}
	return list
}
