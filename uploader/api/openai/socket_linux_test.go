package openai

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pair returns both ends of a TCP connection on loopback.
func pair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = c.Close(), s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// TestDeadPeersAreFound reads the options by which the kernel finds a dead peer, and
// which bound the send buffer.
func TestDeadPeersAreFound(t *testing.T) {
	client, _ := pair(t)
	tune(client, time.Minute)
	for name, want := range map[int]int{
		unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 15, unix.TCP_USER_TIMEOUT: 75_000, unix.TCP_NOTSENT_LOWAT: mostUnsent,
	} {
		require.NoError(t, control(client, func(fd int) error {
			got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, name)
			require.Equal(t, want, got)
			return err
		}))
	}
}

// TestAcknowledged writes until the peer's buffers are full. What is acknowledged is less
// than what was sent, and grows when the peer reads.
func TestAcknowledged(t *testing.T) {
	client, server := pair(t)
	require.NoError(t, server.SetReadBuffer(64<<10))
	tune(client, time.Minute)
	c := newConn(client, nil)
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	close(c.read) // a failed write waits for no answer
	c.once.Do(func() {})
	for {
		if _, err := c.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	acked, pending := c.acknowledged()
	require.Equal(t, c.sent.Load(), acked+pending)
	require.Positive(t, acked)
	require.Positive(t, pending)
	_, err := io.CopyN(io.Discard, server, c.sent.Load())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		acked, pending = c.acknowledged()
		return pending == 0
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, c.sent.Load(), acked)
	require.NoError(t, c.Close())
	_, pending = c.acknowledged()
	require.Zero(t, pending)
}

func TestConnBelowTLS(t *testing.T) {
	client, _ := pair(t)
	c := newConn(client, nil)
	require.Same(t, c, connOf(c))
	require.Same(t, c, connOf(tls.Client(c, &tls.Config{InsecureSkipVerify: true})))
	require.Nil(t, connOf(client))
}
