package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// manyDescriptors times the close of a file by a program that has 15,000 others open:
// the daemon looks for another descriptor of the file among them. The measure is
// a reader that takes each of them by os.ReadFile.
func manyDescriptors(b *bench, path string) error {
	srv, err := b.server()
	if err != nil {
		return err
	}
	defer srv.stop()
	m, err := b.mount(path, srv, "--close=background")
	if err != nil {
		return err
	}
	defer m.stop()
	f, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	defer f.Close()
	for range 15000 / b.scale {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("15,000 descriptors: %w: raise the limit with ulimit -n", err)
		}
		defer unix.Close(fd)
	}
	return b.ratios("close beside 15,000 descriptors / os.ReadFile of each", path, 0.5,
		func() (time.Duration, error) {
			f, err := os.Create(m.fresh())
			if err != nil {
				return 0, err
			}
			if _, err := f.WriteString("x"); err != nil {
				return 0, errors.Join(err, f.Close())
			}
			started := time.Now()
			err = f.Close()
			return time.Since(started), err
		},
		func() (time.Duration, error) {
			started := time.Now()
			n, err := readDescriptors(os.Getpid())
			if err == nil && n < int(15000/b.scale) {
				err = fmt.Errorf("only %d descriptors were read", n)
			}
			return time.Since(started), err
		})
}

// readDescriptors reads position, flags, mount and inode of each descriptor of a
// process, and returns how many there are.
func readDescriptors(pid int) (int, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fdinfo", pid))
	if err != nil {
		return 0, err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return 0, err
	}
	type descriptor struct {
		pos, flags, mount int64
		ino               uint64
	}
	var all []descriptor
	for _, name := range names {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, name))
		if errors.Is(err, syscall.ENOENT) {
			continue // the directory's own
		}
		if err != nil {
			return 0, err
		}
		var d descriptor
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch key {
			case "pos":
				d.pos, _ = strconv.ParseInt(value, 10, 64)
			case "flags":
				d.flags, _ = strconv.ParseInt(value, 8, 64)
			case "mnt_id":
				d.mount, _ = strconv.ParseInt(value, 10, 64)
			case "ino":
				d.ino, _ = strconv.ParseUint(value, 10, 64)
			}
		}
		all = append(all, d)
	}
	return len(all), nil
}
