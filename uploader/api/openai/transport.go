package openai

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	dialTimeout      = 30 * time.Second
	handshakeTimeout = 15 * time.Second
	// idleTimeout is below the idle timeout of common servers and gateways. So
	// the server seldom closes a connection just when a call begins to use it.
	idleTimeout = 50 * time.Second
	// answerGrace bounds how long a failed write waits for the answer that
	// may explain it.
	answerGrace = time.Second
)

// newClient returns a client with at most conns connections, all of them kept.
//
// It speaks HTTP/1.1 only: HTTP/2 would put all parts on one connection, and so
// under one congestion window. It follows no redirects: it would send a part twice,
// and the key to a host that the user did not choose.
func newClient(cfg Config, conns int) *http.Client {
	dialer := &net.Dialer{Timeout: dialTimeout}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &answerFirst{Conn: conn, read: make(chan struct{})}, nil
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

// answerFirst is a connection on which an answer wins over a broken write.
//
// A server may refuse a part (401, 413, 429) before it has read it, and close.
// The client is then still writing and gets EPIPE or ECONNRESET, and
// [http.Transport] reports whichever of that and the answer comes first. So a
// failed write is held back until the reading side has taken everything that
// had arrived, and the answer is delivered first. The other remedy, Expect:
// 100-continue, would cost every part a round trip, and a second where a server
// does not know it.
type answerFirst struct {
	net.Conn
	once sync.Once
	read chan struct{} // closed when reading has ended, or by Close
}

func (c *answerFirst) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() { close(c.read) })
	}
	return n, err
}

func (c *answerFirst) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		grace := time.NewTimer(answerGrace)
		defer grace.Stop()
		select {
		case <-c.read:
		case <-grace.C:
		}
	}
	return n, err
}

// copyBuffers are what parts are copied through: large enough that a part takes
// few system calls, small enough to stay in a core's cache between the reading,
// the summing and the writing.
var copyBuffers = sync.Pool{New: func() any { return new([largestPiece]byte) }}

// A part is written in pieces of these sizes. A larger one is faster where the line
// is, and takes too long to count as progress where it is not.
const (
	smallestPiece = 32 << 10
	largestPiece  = 256 << 10
	longPiece     = time.Second
)

// ReadFrom is what the transport sends a body with, where there is no TLS.
func (c *answerFirst) ReadFrom(r io.Reader) (written int64, err error) {
	buf := copyBuffers.Get().(*[largestPiece]byte)
	defer copyBuffers.Put(buf)
	for size := smallestPiece; ; {
		n, readErr := r.Read(buf[:size])
		if n > 0 {
			started := time.Now()
			n, err := c.Write(buf[:n])
			written += int64(n)
			if err != nil {
				return written, err
			}
			if time.Since(started) > longPiece {
				size = smallestPiece
			} else if n == size {
				size = min(2*size, largestPiece)
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

func (c *answerFirst) Close() error {
	c.once.Do(func() { close(c.read) })
	return c.Conn.Close()
}
