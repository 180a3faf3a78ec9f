package openai

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The clock is simulated: a limit is kept exactly, whatever the connections and the
// pieces, and it can be changed while they wait.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimit(0)
		require.Zero(t, l.PerSecond())
		n, err := l.wait(t.Context(), 1<<30)
		require.NoError(t, err)
		require.Equal(t, 1<<30, n, "no limit, no pieces")

		l.Set(1 << 20)
		require.EqualValues(t, 1<<20, l.PerSecond())
		began := time.Now()
		done := make(chan struct{})
		for range 8 {
			go func() {
				for left := 2 << 20; left > 0; {
					n, err := l.wait(t.Context(), left)
					require.NoError(t, err)
					require.LessOrEqual(t, n, (1<<20)/piecesOf)
					left -= n
				}
				done <- struct{}{}
			}()
		}
		for range 8 {
			<-done
		}
		require.InDelta(t, 16, time.Since(began).Seconds(), 0.5)

		l.Set(leastPiece)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Millisecond); cancel() }()
		for err = nil; err == nil; {
			_, err = l.wait(ctx, 1<<20)
		}
		require.ErrorIs(t, err, context.Canceled, "a connection that is closed waits no more")
		var none *Limit
		n, err = none.wait(t.Context(), 5)
		require.NoError(t, err)
		require.Equal(t, 5, n)
	})
}

// The client's connections keep to the limit.
func TestLimitedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		client := newClient(Config{
			Limit: NewLimit(10 << 10),
			Dial:  func(context.Context, string, string) (net.Conn, error) { return near, nil },
		}, 1)
		c, err := client.Transport.(*http.Transport).DialContext(t.Context(), "tcp", "far:1")
		require.NoError(t, err)
		go io.Copy(io.Discard, far)
		began := time.Now()
		n, err := c.Write(make([]byte, 100<<10))
		require.NoError(t, err)
		require.Equal(t, 100<<10, n)
		require.InDelta(t, 10, time.Since(began).Seconds(), 0.5)
		c.(*conn).limit.Set(leastPiece)
		go func() { time.Sleep(time.Second); c.Close() }()
		_, err = c.Write(make([]byte, 1<<20))
		require.Error(t, err, "a closed connection waits no more")
	})
}
