package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MapsToWrite reports whether the process pid has a shared, writable mapping of the
// file with that inode number on a device, "major:minor": what it stores there goes
// into the file, with or without a descriptor. A process that is exiting has none. The
// error says that its mappings cannot be read: the reader may not trace it.
//
// A process inside execve(2) must not wait for the reader, see [Status.InExec].
func MapsToWrite(pid int, device string, ino uint64) (bool, error) {
	found, err := mapsToWrite(fmt.Sprintf("/proc/%d/maps", pid), device, ino)
	if !errors.Is(err, errNoMemory) {
		return found, err
	}
	// A main thread that has ended has no memory, while the process lives.
	tid, err := livingThread(pid)
	if err != nil || tid == 0 {
		return false, nil
	}
	found, err = mapsToWrite(fmt.Sprintf("/proc/%d/task/%d/maps", pid, tid), device, ino)
	if errors.Is(err, errNoMemory) {
		return false, nil
	}
	return found, err
}

// errNoMemory means that a thread has ended, or that there is none.
var errNoMemory = errors.New("it has no memory")

func mapsToWrite(name, device string, ino uint64) (found bool, err error) {
	f, err := os.Open(name)
	if err == nil {
		defer f.Close()
		found, err = queryMaps(f, device, ino)
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			found, err = scanMaps(f, device, ino) // before Linux 6.11
		}
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		err = errNoMemory
	}
	return found, err
}

// procmapQuery is the kernel's struct procmap_query.
type procmapQuery struct {
	size, flags, addr           uint64
	start, end, perms, pageSize uint64
	offset, inode               uint64
	major, minor                uint32
	nameSize, buildIDSize       uint32
	nameAddr, buildIDAddr       uint64
}

// PROCMAP_QUERY and its flags, from include/uapi/linux/fs.h.
const (
	ioctlProcmapQuery = 3<<30 | unsafe.Sizeof(procmapQuery{})<<16 | 'f'<<8 | 17 // _IOWR('f', 17, …)

	procmapWritable = 0x02
	procmapShared   = 0x08
	procmapNext     = 0x10 // the mapping at the address, or the next one
	procmapOfFile   = 0x20
)

// queryMaps is mapsToWrite through PROCMAP_QUERY (Linux 6.11). The kernel shows only the
// mappings that count, so the cost does not grow with the others. unix.ENOTTY means that
// it does not know the call.
func queryMaps(f *os.File, device string, ino uint64) (bool, error) {
	q := procmapQuery{size: uint64(unsafe.Sizeof(procmapQuery{}))}
	for {
		q.flags = procmapWritable | procmapShared | procmapNext | procmapOfFile
		q.addr = q.end
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlProcmapQuery, uintptr(unsafe.Pointer(&q)))
		switch {
		case errno == unix.ENOENT:
			return false, nil // there is no other one
		case errno == unix.EINTR:
		case errno != 0:
			return false, errno
		case q.inode == ino && fmt.Sprintf("%d:%d", q.major, q.minor) == device:
			return true, nil
		}
	}
}

// scanMaps is mapsToWrite from the text of proc_pid_maps(5), which is empty where there is
// no memory.
func scanMaps(r io.Reader, device string, ino uint64) (bool, error) {
	var major, minor uint64
	if _, err := fmt.Sscanf(device, "%d:%d", &major, &minor); err != nil {
		return false, fmt.Errorf("device %q: %w", device, err)
	}
	inHex := fmt.Sprintf("%02x:%02x", major, minor)
	lines := bufio.NewReader(r)
	for seen := false; ; seen = true {
		line, err := lines.ReadSlice('\n')
		// A line is cut off by the buffer within its path, which comes last.
		if f := bytes.Fields(line); len(f) >= 5 && len(f[1]) == 4 && f[1][1] == 'w' && f[1][3] == 's' {
			if string(f[3]) == inHex && number(f[4], 10) == ino {
				return true, nil
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if err == io.EOF && !seen {
			return false, errNoMemory
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
