package openai_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/api/openai"
	"uploadfs/uploader/api/retry"
)

// slowHop is a relay to a server that reads all that a client sends at once, and
// passes it on at rate bytes per second. It returns the relay's address.
func slowHop(t testing.TB, server string, rate int) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	add := func(conn net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open[conn] = true
	}
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			add(client)
			add(upstream)
			running.Go(func() { _, _ = io.Copy(client, upstream); _ = client.Close() })
			pipe := make(chan []byte, 1<<16)
			running.Go(func() {
				defer close(pipe)
				for {
					b := make([]byte, 64<<10)
					n, err := client.Read(b)
					if err != nil {
						return
					}
					pipe <- b[:n]
				}
			})
			running.Go(func() {
				defer upstream.Close()
				for b := range pipe {
					for len(b) > 0 {
						n := min(len(b), rate/20)
						time.Sleep(time.Second / 20) // the hop's pace
						if _, err := upstream.Write(b[:n]); err != nil {
							return
						}
						b = b[n:]
					}
				}
			})
		}
	})
	return listener.Addr().String()
}

// TestSlowHop sends a part through a relay that takes all of it at once and passes it on
// at 60 KB/s. Without an acknowledged byte for ten times the stall limit it arrives, in
// one attempt.
func TestSlowHop(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 8<<10) // 128 KiB
	large := spec
	large.Bytes = int64(len(content))
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", encrypted), func(t *testing.T) {
			t.Parallel()
			l := serve(t, encrypted)
			scheme, server, _ := strings.Cut(l.url, "://")
			b := newBackend(t, scheme+"://"+slowHop(t, server, 60_000), openai.Config{
				Stall: 200 * time.Millisecond, AnswerStall: time.Second, TLS: l.roots,
			})
			up, err := b.Create(t.Context(), large)
			require.NoError(t, err)
			part, err := b.AddPart(t.Context(), up.ID, section(content))
			require.NoError(t, err)
			file, err := b.Complete(t.Context(), up.ID, []string{part}, "")
			require.NoError(t, err)
			require.Equal(t, content, l.content(t, file.ID))
			require.EqualValues(t, 1, l.Stats().PartsStored)
		})
	}
}

// TestSlowServer sends a part to a server that reads 50 KiB/s on a connection. The
// kernels' buffers take it at once. Window updates on loopback come every 64 KiB, the
// size of its segments.
func TestSlowServer(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 16<<10) // 256 KiB
	large := spec
	large.Bytes = int64(len(content))
	l := serve(t, false)
	l.SetFaults(local.Faults{RatePerConnection: 50 << 10})
	b := newBackend(t, l.url, openai.Config{Stall: 3 * time.Second, AnswerStall: time.Second})
	up, err := b.Create(t.Context(), large)
	require.NoError(t, err)
	_, err = b.AddPart(t.Context(), up.ID, section(content))
	require.NoError(t, err)
	require.EqualValues(t, 1, l.Stats().PartsStored)
}

// TestAnswerTimeoutIsDoubled has a server take a part and not answer, three times.
func TestAnswerTimeoutIsDoubled(t *testing.T) {
	var requests atomic.Int64
	b := fake(t, openai.Config{Stall: time.Minute, AnswerStall: 50 * time.Millisecond, SlowestRate: 1 << 30},
		func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if requests.Add(1) <= 3 {
				<-r.Context().Done() // until the client has gone
				return
			}
			answer(w, http.StatusOK, object{"id": "part_1"})
		})
	var timeouts []string
	ctx := api.WithRetryNote(t.Context(), func(err error, _ time.Time) {
		if err != nil {
			require.ErrorIs(t, err, api.ErrAnswerTimeout)
			require.Equal(t, api.Transient, api.KindOf(err))
			timeouts = append(timeouts, err.Error())
		}
	})
	id, err := retry.New(b, retry.Options{First: time.Millisecond}).AddPart(ctx, "upload_1", section([]byte("abcdef")))
	require.NoError(t, err)
	require.Equal(t, "part_1", id)
	require.Len(t, timeouts, 3)
	for i, limit := range []string{"50ms", "100ms", "200ms"} {
		require.Equal(t, "part upload_1: no progress for "+limit+": the request was received, but not answered", timeouts[i])
	}
}

// TestExpiryEndsTheWaitForAnAnswer ends the context as the uploader does when an Upload
// expires.
func TestExpiryEndsTheWaitForAnAnswer(t *testing.T) {
	received := make(chan struct{})
	b := fake(t, openai.Config{}, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(received)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	expired := &api.Error{Kind: api.Gone, Message: "the Upload expired"}
	go func() {
		<-received
		cancel(expired)
	}()
	_, err := b.AddPart(ctx, "upload_1", section([]byte("abcdef")))
	require.ErrorIs(t, err, expired)
	require.Equal(t, api.Gone, api.KindOf(err))
}

// TestInterimAnswer has a server send an interim answer before it reads the request,
// which then takes longer than the limit.
func TestInterimAnswer(t *testing.T) {
	const stall = 500 * time.Millisecond
	url := rawServer(t, nil, func(conn net.Conn, r *http.Request) {
		_, _ = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\n\r\n")
		_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		for piece := make([]byte, 512<<10); ; {
			if _, err := io.ReadFull(r.Body, piece); err != nil {
				break
			}
			time.Sleep(stall / 16) // the network's pace
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"id\":\"part_1\"}")
	})
	began := time.Now()
	_, err := newBackend(t, url, openai.Config{Stall: stall}).
		AddPart(t.Context(), "upload_1", io.NewSectionReader(allZeros{}, 0, 16<<20))
	require.NoError(t, err)
	require.Greater(t, time.Since(began), stall, "the test must be slow to say anything")
}

// TestProgress checks what is reported of a part that is sent slowly: it grows while the
// server reads, and does not count what lies in the send buffer.
func TestProgress(t *testing.T) {
	const size = 16 << 20
	encrypted := httptest.NewTLSServer(nil) // for its certificate only
	t.Cleanup(encrypted.Close)
	for scheme, config := range map[string]*tls.Config{"http": nil, "https": encrypted.TLS} {
		t.Run(scheme, func(t *testing.T) {
			half := make(chan struct{}) // closed: the server reads on
			readOn := sync.OnceFunc(func() { close(half) })
			url := rawServer(t, config, func(conn net.Conn, r *http.Request) {
				// A large buffer would take, and acknowledge, the other half as well.
				raw := conn
				if c, ok := conn.(*tls.Conn); ok {
					raw = c.NetConn()
				}
				_ = raw.(*net.TCPConn).SetReadBuffer(64 << 10)
				_, _ = io.CopyN(io.Discard, r.Body, size/2)
				<-half
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"id\":\"part_1\"}")
			})
			t.Cleanup(readOn) // also after a failure: the server's cleanup waits for it
			var reports []int64
			ctx := api.WithProgress(t.Context(), func(acked int64) {
				reports = append(reports, acked)
				if acked >= size/4 && acked < size && len(reports) > 1 {
					readOn()
				}
			})
			b := newBackend(t, url, openai.Config{Stall: 10 * time.Second, TLS: &tls.Config{InsecureSkipVerify: true}})
			_, err := b.AddPart(ctx, "upload_1", io.NewSectionReader(allZeros{}, 0, size))
			require.NoError(t, err)
			require.Zero(t, reports[0])
			require.EqualValues(t, size, reports[len(reports)-1])
			require.Greater(t, len(reports), 2, "there were reports on the way")
			require.IsNonDecreasing(t, reports)
		})
	}
}

// TestProgressOfEachAttempt checks that each attempt begins with 0.
func TestProgressOfEachAttempt(t *testing.T) {
	l := serve(t, false)
	var failed atomic.Bool
	l.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageBody && p.Received > 1<<20 && !failed.Swap(true) {
			return &local.Fault{Reset: true}
		}
		return nil
	})
	b := retry.New(newBackend(t, l.url, openai.Config{}), retry.Options{First: time.Millisecond})
	large := spec
	large.Bytes = 4 << 20
	up, err := b.Create(t.Context(), large)
	require.NoError(t, err)
	var reports []int64
	_, err = b.AddPart(api.WithProgress(t.Context(), func(n int64) { reports = append(reports, n) }), up.ID,
		io.NewSectionReader(allZeros{}, 0, large.Bytes))
	require.NoError(t, err)
	require.Zero(t, reports[0])
	zeros := 0
	for _, n := range reports {
		if n == 0 {
			zeros++
		}
	}
	require.GreaterOrEqual(t, zeros, 2, "one for each attempt: %v", reports)
	require.EqualValues(t, large.Bytes, reports[len(reports)-1])
}
