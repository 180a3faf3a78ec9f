package local

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connections bounds the open connections. Those of [Server.Dial] are not counted: the
// server's own process must get in, however many connections other programs keep open.
type connections struct {
	mu      sync.Mutex
	counted map[net.Conn]bool // open
	own     map[string]bool   // the client's addresses of connections of Dial
}

// connState admits connections, and forgets closed ones.
func (s *Server) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.counters.connections.Add(1)
		if !s.connections.admit(conn, s.opt.MaxConnections) {
			rejectConn(conn)
		}
	case http.StateClosed, http.StateHijacked:
		s.connections.forget(conn)
	}
}

// admit counts a new connection. It returns false if there are limit already.
func (c *connections) admit(conn net.Conn, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own[conn.RemoteAddr().String()] {
		return true
	}
	if len(c.counted) >= limit {
		return false
	}
	if c.counted == nil {
		c.counted = make(map[net.Conn]bool)
	}
	c.counted[conn] = true
	return true
}

func (c *connections) forget(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.counted, conn)
	delete(c.own, conn.RemoteAddr().String())
}

// rejectConn answers that there are too many connections, and closes. The send buffer of
// a new connection takes the answer at once.
func rejectConn(conn net.Conn) {
	body := refuse(http.StatusServiceUnavailable, "", "Too many connections; close some, or try again later.").envelope()
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Retry-After: 1\r\nConnection: close\r\n\r\n%s", len(body), body)
	conn.Close() // its goroutine then ends
}

// Dial opens a connection to a listener of s on loopback, for a client in the server's own
// process. It is never refused for Options.MaxConnections. Its address is known before it
// connects, and so before it is accepted.
func (s *Server) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	own := ""
	dialer := &net.Dialer{Control: func(network, _ string, raw syscall.RawConn) (err error) {
		s.connections.disown(own) // of an attempt before, to another address
		if ctlErr := raw.Control(func(fd uintptr) { own, err = bindLoopback(network, int(fd)) }); ctlErr != nil {
			return ctlErr
		}
		if err == nil {
			s.connections.add(own)
		}
		return err
	}}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		s.connections.disown(own)
	}
	return conn, err
}

func (c *connections) add(own string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own == nil {
		c.own = make(map[string]bool)
	}
	c.own[own] = true
}

func (c *connections) disown(own string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.own, own)
}

// bindLoopback gives a TCP socket a loopback address with a free port, and returns it.
func bindLoopback(network string, fd int) (string, error) {
	var free unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if network == "tcp6" {
		free = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	if err := unix.Bind(fd, free); err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return "", fmt.Errorf("getsockname: %w", err)
	}
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		return (&net.TCPAddr{IP: a.Addr[:], Port: a.Port}).String(), nil
	case *unix.SockaddrInet6:
		return (&net.TCPAddr{IP: a.Addr[:], Port: a.Port}).String(), nil
	}
	return "", fmt.Errorf("getsockname: %T", bound)
}
