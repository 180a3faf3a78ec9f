package openai

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged returns how many bytes in the send buffer of c the peer has not
// acknowledged, tcp(7) SIOCOUTQ. It is 0 for a connection that is closed or not TCP.
func unacknowledged(c net.Conn) int64 {
	pending := 0
	if err := control(c, func(fd int) (err error) {
		pending, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return err
	}); err != nil {
		return 0
	}
	return int64(pending)
}

// tune sets the options of a TCP connection.
//
// Keepalive probes find a peer that has died while its answer is awaited.
// TCP_USER_TIMEOUT ends a connection whose peer acknowledges neither data nor probes;
// it is longer than stall, so that the watchdog speaks first where both would.
// TCP_NOTSENT_LOWAT bounds the send buffer without bounding what is in flight, unlike
// SO_SNDBUF, which would switch off its tuning and slow long lines down.
//
// Errors are ignored: some kernels (gVisor) lack some of them, and each only helps.
func tune(c net.Conn, stall time.Duration) {
	if _, ok := c.(*net.TCPConn); !ok {
		return
	}
	_ = control(c, func(fd int) error {
		for _, o := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int((stall + stall/4).Milliseconds())},
			{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, mostUnsent},
		} {
			_ = unix.SetsockoptInt(fd, o.level, o.name, o.value)
		}
		return nil
	})
}

// control runs f with the descriptor of c.
func control(c net.Conn, f func(fd int) error) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return syscall.ENOTSOCK
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	failed := err
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
