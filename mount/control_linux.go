package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A socket's address holds 107 bytes of path, less than a state directory may
// need. So both sides go through a descriptor of the directory.

// listenIn listens on the control socket of a state directory.
func listenIn(dir string) (net.Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socketVia(d)})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then the descriptor is closed; the caller removes it
	return l, nil
}

// dialIn connects to the control socket of a state directory.
func dialIn(ctx context.Context, dir string) (*net.UnixConn, error) {
	// O_PATH waits for no FIFO or device in the place of the directory.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	c, err := new(net.Dialer).DialContext(ctx, "unix", socketVia(d))
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func socketVia(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile)
}

// process is a running process, named by a descriptor: unlike a pid it cannot
// come to mean another one.
type process struct{ fd int }

// credentials are those that the process at the other end of c had when it began to
// listen (SO_PEERCRED of unix(7)).
func credentials(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(ctlErr, err)
}

// peerUser finds the user of the process at the other end of c.
func peerUser(c *net.UnixConn) (uid int, err error) {
	cred, err := credentials(c)
	if err != nil {
		return -1, err
	}
	return int(cred.Uid), nil
}

// peer finds the process at the other end of c.
func peer(c *net.UnixConn) (process, error) {
	cred, err := credentials(c)
	if err != nil {
		return process{}, err
	}
	fd, err := unix.PidfdOpen(int(cred.Pid), 0)
	return process{fd}, err
}

// wait returns when the process is gone or ctx ends.
func (p process) wait(ctx context.Context) error {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		// A pidfd is readable once its process has ended; the bound lets ctx be seen.
		n, err := unix.Poll(fds, 100)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return nil
		}
	}
	return context.Cause(ctx)
}

// kill ends the process; one that has ended already is no error.
func (p process) kill() error {
	if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}

func (p process) close() { unix.Close(p.fd) }
