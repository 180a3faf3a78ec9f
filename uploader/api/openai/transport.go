package openai

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout      = 30 * time.Second
	handshakeTimeout = 15 * time.Second
	// idleTimeout is below the idle timeout of common servers and gateways. So
	// the server seldom closes a connection just when a call begins to use it.
	idleTimeout = 50 * time.Second
	// keepAlive is how long a connection is silent before the kernel probes the
	// peer, and the time between two probes.
	keepAlive = 15 * time.Second
	// mostUnsent bounds the bytes that wait in the send buffer of a connection
	// beyond what its congestion window allows to be in flight.
	mostUnsent = 512 << 10
	// answerGrace bounds how long a failed write waits for the answer that
	// may explain it.
	answerGrace = time.Second
)

// newClient returns a client with at most conns connections, all of them kept.
//
// It speaks HTTP/1.1 only: HTTP/2 would put all parts on one connection, and so
// under one congestion window. It follows no redirects by itself: it would send the key
// to a host that the user did not choose. See exchange.redirected.
func newClient(cfg Config, conns int) *http.Client {
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				tune(c, cfg.Stall)
				return newConn(c, cfg.Limit), nil
			},
			TLSClientConfig:     cfg.TLS.Clone(),
			TLSHandshakeTimeout: handshakeTimeout,
			Protocols:           protocols,
			MaxConnsPerHost:     conns,
			MaxIdleConnsPerHost: conns,
			IdleConnTimeout:     idleTimeout,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// pieceSize is the size of the pieces that a part is written in. A larger one takes
// fewer system calls, and a smaller one stays in a core's cache between reading,
// summing and writing.
const pieceSize = 256 << 10

var copyBuffers = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// conn is a TCP connection that counts what it sends, and on which an answer wins
// over a failed write. TLS, where it is used, lies above it.
//
// A server may refuse a part (401, 413, 429) before it has read it, and close. The
// client is then still writing and gets EPIPE or ECONNRESET, and [http.Transport]
// reports whichever of that and the answer comes first. So a failed write waits until
// the reading side has read everything that has arrived, and the answer is delivered
// first. The alternative, Expect: 100-continue, would cost every part a round trip,
// and a second where a server does not know it.
type conn struct {
	net.Conn
	sent atomic.Int64  // bytes passed to the kernel
	once sync.Once     // closes read
	read chan struct{} // closed when reading has ended, or by Close

	limit *Limit          // nil for none
	open  context.Context // ends with Close
	close context.CancelFunc
}

func newConn(c net.Conn, limit *Limit) *conn {
	open, end := context.WithCancel(context.Background())
	return &conn{Conn: c, read: make(chan struct{}), limit: limit, open: open, close: end}
}

// connOf returns the connection below TLS, or nil if it is not ours.
func connOf(c net.Conn) *conn {
	for {
		switch inner := c.(type) {
		case *conn:
			return inner
		case interface{ NetConn() net.Conn }:
			c = inner.NetConn()
		default:
			return nil
		}
	}
}

// acknowledged returns how many bytes the peer has acknowledged since the connection
// was opened, and how many it has not. Where the system does not tell, sent bytes
// count as acknowledged.
func (c *conn) acknowledged() (acked, pending int64) {
	// In this order: what is sent in between counts as not acknowledged. A closed
	// connection has nothing pending.
	sent := c.sent.Load()
	pending = min(sent, unacknowledged(c.Conn))
	return sent - pending, pending
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() { close(c.read) })
	}
	return n, err
}

func (c *conn) Write(p []byte) (written int, err error) {
	for written < len(p) && err == nil {
		var n int
		if n, err = c.limit.wait(c.open, len(p)-written); err == nil {
			n, err = c.Conn.Write(p[written : written+n])
			written += n
			c.sent.Add(int64(n))
		}
	}
	if err != nil {
		grace := time.NewTimer(answerGrace)
		defer grace.Stop()
		select {
		case <-c.read:
		case <-grace.C:
		}
	}
	return written, err
}

// ReadFrom is what the transport sends a body with, where there is no TLS.
func (c *conn) ReadFrom(r io.Reader) (written int64, err error) {
	buf := copyBuffers.Get().(*[pieceSize]byte)
	defer copyBuffers.Put(buf)
	for {
		n, readErr := r.Read(buf[:])
		if n > 0 {
			n, err := c.Write(buf[:n])
			written += int64(n)
			if err != nil {
				return written, err
			}
		}
		if readErr == io.EOF {
			return written, nil
		}
		if readErr != nil {
			return written, readErr
		}
	}
}

func (c *conn) Close() error {
	c.close()
	c.once.Do(func() { close(c.read) })
	return c.Conn.Close()
}
