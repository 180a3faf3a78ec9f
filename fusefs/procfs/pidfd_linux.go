package procfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PIDFD refers to a thread, see pidfd_open(2). It needs no permission, and works
// where /proc hides the process (hidepid). Its methods may be called concurrently,
// but none after Close.
type PIDFD struct{ fd int }

// OpenPIDFD opens the thread tid. Before Linux 6.9 only main threads can be opened.
// For 0, a thread in another PID namespace, it fails with os.ErrNotExist.
func OpenPIDFD(tid int) (*PIDFD, error) {
	if tid == 0 {
		return nil, os.ErrNotExist
	}
	const thread = unix.O_EXCL // PIDFD_THREAD
	fd, err := unix.PidfdOpen(tid, thread)
	if err == unix.EINVAL {
		fd, err = unix.PidfdOpen(tid, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	return &PIDFD{fd}, nil
}

// Close releases the descriptor.
func (p *PIDFD) Close() error { return unix.Close(p.fd) }

// pidfdInfo is the kernel's struct pidfd_info in its first version.
type pidfdInfo struct {
	mask            uint64
	cgroup          uint64
	pid, tgid, ppid uint32
	ruid, rgid      uint32
	euid, egid      uint32
	suid, sgid      uint32
	fsuid, fsgid    uint32
	exitCode        int32
}

// pidfdGetInfo is PIDFD_GET_INFO for a struct of that size: _IOWR(0xFF, 11, …).
const pidfdGetInfo = 3<<30 | unix.PIDFD_INFO_SIZE_VER0<<16 | 0xff<<8 | 11

func (p *PIDFD) info(mask uint64) (pidfdInfo, error) {
	info := pidfdInfo{mask: mask}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(p.fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return pidfdInfo{}, fmt.Errorf("PIDFD_GET_INFO: %w", errno)
	}
	return info, nil
}

// PID is the process of the thread (Linux 6.13).
func (p *PIDFD) PID() (int, error) {
	info, err := p.info(unix.PIDFD_INFO_PID)
	if err == nil && info.tgid == 0 {
		err = os.ErrNotExist
	}
	return int(info.tgid), err
}

// Exited reports whether the thread has ended. A main thread counts as alive while
// other threads live, and as ended before its parent has waited for it.
func (p *PIDFD) Exited() (bool, error) {
	return p.poll(unix.POLLIN, 0)
}

// ExitsWithin is Exited after at most d, as soon as the thread has ended.
func (p *PIDFD) ExitsWithin(d time.Duration) (bool, error) {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		exited, err := p.poll(unix.POLLIN, int(max(left.Milliseconds(), 0)))
		if exited || err != nil || left <= 0 {
			return exited, err
		}
	}
}

// poll waits for an event, or for the end of the thread's last traces, for so many
// milliseconds at most.
func (p *PIDFD) poll(events int16, timeout int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: events}}
	n, err := unix.Poll(fds, timeout)
	if err == unix.EINTR {
		return false, nil
	}
	return n > 0, err
}

// Reaped reports whether the thread has ended and its parent has waited for it. What
// cannot be polled is taken for that: to wait for it is an error at once.
func (p *PIDFD) Reaped() bool {
	reaped, err := p.poll(0, 0) // POLLHUP needs not be asked for
	return reaped || err != nil
}

// ErrNoExitStatus says that this kernel does not tell the exit status of a process
// that is not a child. It needs Linux 6.15.
var ErrNoExitStatus = errors.New("the kernel does not tell the exit status")

// pollSlice bounds one poll, so that a wait notices the end of its context.
const pollSlice = 100 * time.Millisecond

// WaitExit waits until the thread has ended and its parent has waited for it, and
// returns how it ended. ctx bounds the waiting: its cause is the error then.
func (p *PIDFD) WaitExit(ctx context.Context) (syscall.WaitStatus, error) {
	for {
		reaped, err := p.poll(0, int(pollSlice.Milliseconds())) // POLLHUP needs not be asked for
		if err != nil {
			return 0, fmt.Errorf("poll of a pidfd: %w", err)
		}
		if reaped {
			return p.exitStatus()
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
}

func (p *PIDFD) exitStatus() (syscall.WaitStatus, error) {
	info, err := p.info(unix.PIDFD_INFO_EXIT)
	if err != nil {
		return 0, err
	}
	if info.mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, ErrNoExitStatus
	}
	return syscall.WaitStatus(info.exitCode), nil
}

// TellsExitStatus reports whether [PIDFD.WaitExit] works here: the kernel is 6.15 or
// later and answers PIDFD_GET_INFO, which a sandbox may forbid.
var TellsExitStatus = sync.OnceValue(func() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil || !atLeast(unix.ByteSliceToString(name.Release[:]), 6, 15) {
		return false
	}
	self, err := OpenPIDFD(os.Getpid())
	if err != nil {
		return false
	}
	defer self.Close()
	pid, err := self.PID()
	return err == nil && pid == os.Getpid()
})

// atLeast compares a kernel's release, such as 6.15.2-arch1, with a version.
func atLeast(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
