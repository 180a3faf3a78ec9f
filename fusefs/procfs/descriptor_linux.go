package procfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Descriptor is one open file of a process as proc_pid_fdinfo(5) tells of it.
type Descriptor struct {
	FD      int
	Pos     int64  // the file offset, bytes
	Flags   int    // of open(2)
	MountID int    // see [Mount]; of pipes, sockets and the like it is in no list
	Ino     uint64 // the file's inode number
}

// Writable reports whether the descriptor is open for writing.
func (d Descriptor) Writable() bool { return d.Flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// Descriptors lists what the process pid has open. An exiting process has nothing.
func Descriptors(pid int) ([]Descriptor, error) {
	fds, err := numbers(fmt.Sprintf("/proc/%d/fdinfo", pid))
	if err != nil {
		return nil, err
	}
	var all []Descriptor
	for _, fd := range fds {
		d, err := ReadDescriptor(pid, fd)
		if err != nil {
			continue // closed meanwhile by another thread
		}
		all = append(all, d)
	}
	return all, nil
}

// ReadDescriptor reads one descriptor of the process pid.
func ReadDescriptor(pid, fd int) (Descriptor, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return Descriptor{}, err
	}
	return parseDescriptor(fd, string(b)), nil
}

func parseDescriptor(fd int, fdinfo string) Descriptor {
	d := Descriptor{FD: fd}
	for line := range strings.Lines(fdinfo) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "pos":
			d.Pos, _ = strconv.ParseInt(value, 10, 64)
		case "flags":
			n, _ := strconv.ParseInt(value, 8, 64)
			d.Flags = int(n)
		case "mnt_id":
			d.MountID, _ = strconv.Atoi(value)
		case "ino":
			d.Ino, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return d
}

// DescriptorPath names the descriptor's link in /proc. To open or stat it reaches
// the file, and waits for its filesystem.
func DescriptorPath(pid, fd int) string { return fmt.Sprintf("/proc/%d/fd/%d", pid, fd) }

// DescriptorTarget is the path that the descriptor was opened by, or what the
// kernel calls a file without one.
func DescriptorTarget(pid, fd int) (string, error) { return os.Readlink(DescriptorPath(pid, fd)) }
