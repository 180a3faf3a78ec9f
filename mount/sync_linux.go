package mount

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	for _, fd := range fds {
		file, err := os.Readlink(fd)
		if err != nil || seen[file] || !strings.HasPrefix(file, point+"/") || strings.HasSuffix(file, " (deleted)") {
			continue // gone, not ours to see, or with nothing to keep
		}
		dir, n := filepath.Split(fd)
		info, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Clean(dir)), "fdinfo", n))
		if err == nil && writable(string(info)) {
			seen[file] = true
			list = append(list, file)
		}
	}
	return list
}

// writable reads the flags in /proc/PID/fdinfo/N: octal, as given to open(2).
func writable(fdinfo string) bool {
	for line := range strings.Lines(fdinfo) {
		if v, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseUint(strings.TrimSpace(v), 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}
