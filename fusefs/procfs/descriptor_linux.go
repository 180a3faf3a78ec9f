package procfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
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
func (d Descriptor) Writable() bool { return d.Flags&unix.O_ACCMODE != unix.O_RDONLY }

// Descriptors lists what the process pid has open; see [EachDescriptor].
func Descriptors(pid int) (all []Descriptor, err error) {
	err = EachDescriptor(pid, func(d Descriptor) bool {
		all = append(all, d)
		return true
	})
	return all, err
}

// EachDescriptor calls fn for each open file of the process pid, until fn returns
// false. An exiting process has none. The table of a main thread that has ended is
// empty, so one of a living thread is read then. The error says that the table
// cannot be read: the process is gone, or the reader may not trace it.
func EachDescriptor(pid int, fn func(Descriptor) bool) error {
	seen, err := eachInTable(fmt.Sprintf("/proc/%d/fdinfo", pid), fn)
	if err != nil || seen {
		return err
	}
	tid, err := livingThread(pid)
	if err != nil || tid == 0 || tid == pid {
		return err
	}
	_, err = eachInTable(fmt.Sprintf("/proc/%d/task/%d/fdinfo", pid, tid), fn)
	return err
}

// A process may have 100,000 descriptors, and a close waits until all are read. So
// each costs three system calls and no allocation. Threads that share the work were
// not faster: they wait for the same locks of the kernel.
const (
	direntBuffer = 32 << 10 // bytes for one getdents(2)
	fdinfoBuffer = 256      // bytes: what [Descriptor] holds comes first in the file
)

// eachInTable calls fn for each entry of an fdinfo directory until fn returns
// false. seen reports whether there was any.
func eachInTable(dir string, fn func(Descriptor) bool) (seen bool, err error) {
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(d)
	entries, fdinfo := make([]byte, direntBuffer), make([]byte, fdinfoBuffer)
	for {
		n, err := unix.Getdents(d, entries)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return seen, err
		}
		for rest := entries[:n]; len(rest) > 0; {
			var name []byte
			if name, rest = nextName(rest); name[0] == '.' {
				continue
			}
			seen = true
			b, err := readAt(d, name, fdinfo)
			if err == unix.ENOENT || err == unix.ESRCH {
				continue // closed meanwhile by another thread
			}
			if err != nil {
				return true, err
			}
			if !fn(parseDescriptor(int(number(name[:len(name)-1], 10)), b)) {
				return true, nil
			}
		}
	}
}

// nextName cuts the first entry from what getdents64(2) returned. The name includes
// its final NUL.
func nextName(entries []byte) (name, rest []byte) {
	const reclen, header = 16, 19 // offsets in struct linux_dirent64
	size := binary.NativeEndian.Uint16(entries[reclen:])
	name = entries[header:size]
	return name[:bytes.IndexByte(name, 0)+1], entries[size:]
}

// readAt reads the start of a file in the directory dir. name ends with a NUL.
func readAt(dir int, name, buf []byte) ([]byte, error) {
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
		unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return nil, errno
	}
	n, err := unix.Read(int(fd), buf)
	unix.Close(int(fd))
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// ReadDescriptor reads one descriptor of the process pid.
func ReadDescriptor(pid, fd int) (Descriptor, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return Descriptor{}, err
	}
	return parseDescriptor(fd, b), nil
}

func parseDescriptor(fd int, fdinfo []byte) Descriptor {
	d := Descriptor{FD: fd}
	for len(fdinfo) > 0 {
		var line []byte
		if i := bytes.IndexByte(fdinfo, '\n'); i >= 0 {
			line, fdinfo = fdinfo[:i], fdinfo[i+1:]
		} else {
			break // cut off by the buffer
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "pos":
			d.Pos = int64(number(value, 10))
		case "flags":
			d.Flags = int(number(value, 8))
		case "mnt_id":
			d.MountID = int(number(value, 10))
		case "ino":
			d.Ino = number(value, 10)
			return d // the last of them in the file
		}
	}
	return d
}

// number parses digits without an allocation.
func number(digits []byte, base uint64) (n uint64) {
	for _, c := range digits {
		n = n*base + uint64(c-'0')
	}
	return n
}

// DescriptorPath names the descriptor's link in /proc. To open or stat it reaches
// the file, and waits for its filesystem.
func DescriptorPath(pid, fd int) string { return fmt.Sprintf("/proc/%d/fd/%d", pid, fd) }

// DescriptorTarget is the path that the descriptor was opened by, or what the
// kernel calls a file without one.
func DescriptorTarget(pid, fd int) (string, error) { return os.Readlink(DescriptorPath(pid, fd)) }
