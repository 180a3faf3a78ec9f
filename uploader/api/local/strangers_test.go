package local_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// TestLittleIsReadAfterARefusedKey has a client send parts with a wrong key. After the
// answer at most 1 MiB is read, and a body that fits leaves the connection open.
func TestLittleIsReadAfterARefusedKey(t *testing.T) {
	events := make(chan local.Event, 1)
	a := start(t, local.Options{Observe: func(e local.Event) { events <- e }})
	head := func(size int) string {
		return fmt.Sprintf("POST /v1/uploads/x/parts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n"+
			"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n", size)
	}
	conn := a.dial()
	conn.write(head(1<<20) + strings.Repeat("x", 1<<20))
	require.NotEmpty(t, conn.read().refused(t, 401))
	require.EqualValues(t, 1<<20, (<-events).Received)
	conn.write(head(1 << 20)) // the connection can be used again
	conn.write(strings.Repeat("x", 1<<20))
	require.NotEmpty(t, conn.read().refused(t, 401))
	<-events

	conn = a.dial()
	conn.write(head(64 << 20))
	require.NotEmpty(t, conn.read().refused(t, 401))
	_, err := io.CopyN(conn.conn, zeros{}, 64<<20)
	require.Error(t, err, "the server has closed")
	require.LessOrEqual(t, (<-events).Received, int64(1<<20))
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestARefusedKeyDoesNotWait has a client send nothing of its body. The connection is
// closed long before the stall timeout, which is beyond the test's own.
func TestARefusedKeyDoesNotWait(t *testing.T) {
	a := start(t, local.Options{StallTimeout: time.Hour})
	conn := a.dial()
	conn.write("POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n")
	require.NotEmpty(t, conn.read().refused(t, 401))
	_, err := conn.r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// TestMaxConnections fills the server with the connections of a stranger. Another one is
// refused, and those of the server's own process are not.
func TestMaxConnections(t *testing.T) {
	const limit = 4
	a := start(t, local.Options{MaxConnections: limit})
	list := "GET /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "\r\n\r\n"
	var strangers []*rawConn
	for range limit {
		conn := a.dial()
		conn.write(list)
		require.Equal(t, http.StatusOK, conn.read().status)
		strangers = append(strangers, conn)
	}
	refused := a.dial().read()
	require.Contains(t, refused.refused(t, 503), "Too many connections")
	require.Equal(t, "1", refused.header.Get("Retry-After"))

	own := &http.Transport{DialContext: a.srv.Dial, DisableKeepAlives: true}
	defer own.CloseIdleConnections()
	for range 2 * limit {
		mine := *a
		mine.client = &http.Client{Transport: own}
		require.Equal(t, http.StatusOK, mine.get("/v1/files").status)
	}
	// Many of them at once, all open.
	var open []net.Conn
	for range 2 * limit {
		conn, err := a.srv.Dial(t.Context(), "tcp", a.addr)
		require.NoError(t, err)
		open = append(open, conn)
	}
	for _, conn := range open {
		_, err := io.WriteString(conn, list)
		require.NoError(t, err)
		var status string
		_, err = fmt.Fscanf(conn, "HTTP/1.1 %s", &status)
		require.NoError(t, err)
		require.Equal(t, "200", status)
		require.NoError(t, conn.Close())
	}

	require.Contains(t, a.dial().read().refused(t, 503), "Too many connections", "our own have freed no place")
	strangers[0].close()
	require.Eventually(t, func() bool { // until the server has seen that one has closed
		conn := a.dial()
		defer conn.conn.Close()
		conn.write(list)
		return conn.read().status == http.StatusOK
	}, 10*time.Second, 10*time.Millisecond)
}

// TestDialWithoutAServer checks that a failed Dial leaves nothing behind.
func TestDialWithoutAServer(t *testing.T) {
	srv, err := local.Open(local.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	defer srv.Close()
	l := newListener(t)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	_, err = srv.Dial(t.Context(), "tcp", addr)
	require.Error(t, err)
}

func TestDefaultMaxConnections(t *testing.T) {
	require.Equal(t, 256, local.DefaultMaxConnections)
}

// TestPagesInABrowser sends what pages of other origins and of rebound names send to a
// server without a key.
func TestPagesInABrowser(t *testing.T) {
	srv, err := local.Open(local.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	a := serve(t, srv, "")
	a.key = ""
	_, port, err := net.SplitHostPort(a.addr)
	require.NoError(t, err)
	for _, test := range []struct {
		method, host string
		header       map[string]string
		want         int
		says         string
	}{
		{"GET", a.addr, nil, 200, ""},
		{"GET", "localhost:" + port, nil, 200, ""},
		{"GET", "LOCALHOST", nil, 200, ""},
		{"GET", "files.localhost.:" + port, nil, 200, ""},
		{"GET", "[::1]:" + port, nil, 200, ""},
		{"GET", "127.9.9.9", nil, 200, ""},
		{"GET", "evil.example:" + port, nil, 403, "Host 'evil.example:" + port + "' is not a loopback name: use http://127.0.0.1:"},
		{"GET", "localhost.evil.example", nil, 403, "is not a loopback name"},
		{"GET", "192.0.2.1", nil, 403, "is not a loopback name"},
		{"GET", "localhost:" + port, map[string]string{"Sec-Fetch-Site": "cross-site"}, 200, ""}, // the page cannot read the answer
		{"POST", a.addr, map[string]string{"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}, 200, ""},
		{"POST", a.addr, map[string]string{"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, 403, "another origin"},
		{"POST", a.addr, map[string]string{"Origin": "https://evil.example", "Content-Type": "application/json"}, 403, "another origin"},
		{"POST", "evil.example", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403, "another origin"},
	} {
		t.Run(fmt.Sprintf("%s %s %v", test.method, test.host, test.header), func(t *testing.T) {
			path, body := "/v1/files", ""
			if test.method == "POST" {
				path, body = "/v1/uploads", createBody(1)
			}
			req, err := http.NewRequest(test.method, "http://"+a.addr+path, strings.NewReader(body))
			require.NoError(t, err)
			req.Host = test.host
			for name, value := range test.header {
				req.Header.Set(name, value)
			}
			got, err := a.do(req)
			require.NoError(t, err)
			require.Equal(t, test.want, got.status, "%s", got.body)
			if test.says != "" {
				require.Contains(t, got.refused(t, 403), test.says)
			}
		})
	}
	// With a key a page cannot do anything, and the server may have any name.
	keyed := start(t, local.Options{})
	req, err := http.NewRequest("GET", "http://"+keyed.addr+"/v1/files", nil)
	require.NoError(t, err)
	req.Host = "files.example"
	got, err := keyed.do(req)
	require.NoError(t, err)
	require.Equal(t, 200, got.status)
}

// TestHostOnOtherAddresses checks that only loopback asks for a loopback name.
func TestHostOnOtherAddresses(t *testing.T) {
	srv, err := local.Open(local.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	defer srv.Close()
	for addr, want := range map[string]int{"127.0.0.1": 403, "::1": 403, "192.0.2.1": 200} {
		req := httptest.NewRequest("GET", "/v1/files", nil)
		req.Host = "files.example"
		req = req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(addr), Port: 80}))
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, req)
		require.Equal(t, want, w.Code, addr)
	}
}
