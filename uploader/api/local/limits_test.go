package local_test

import (
	"bytes"
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

func TestKey(t *testing.T) {
	a := start(t, local.Options{})
	a.key = ""
	require.Contains(t, a.get("/v1/files").refused(t, 401), "didn't provide an API key")
	for wrong, shown := range map[string]string{
		"short":       "Incorrect API key provided: ***.",
		testKey + "x": "Incorrect API key provided: sk-***nopx.",
		testKey[1:]:   "Incorrect API key provided: k-t***mnop.",
	} {
		a.key = wrong
		for _, got := range []answer{a.get("/v1/files"), a.get("/v1/nothing"), a.postJSON("/v1/uploads", "{}")} {
			require.Equal(t, shown, got.refused(t, 401))
			require.NotContains(t, string(got.body), wrong)
		}
	}
	req, err := http.NewRequest("GET", "http://"+a.addr+"/v1/files", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Basic "+testKey)
	a.key = ""
	got, err := a.do(req)
	require.NoError(t, err)
	require.NotEmpty(t, got.refused(t, 401))
}

func TestNoKeyMeansNoAuthentication(t *testing.T) {
	srv, err := local.Open(local.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	a := serve(t, srv, "")
	a.key = ""
	require.Equal(t, http.StatusOK, a.get("/v1/files").status)
}

func TestUnknownPathsAndMethods(t *testing.T) {
	a := start(t, local.Options{})
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v1/uploads/", "//v1/files", "/v1/files/", "/v1/files//content", "/v1/files/x/y", "/v2/files",
		"/v1/uploads/x", "/v1/../v1/files", "/V1/files",
	} {
		got := a.get(path)
		if path == "/v1/uploads/x" { // there is no GET of an Upload, nor any other call there
			require.Contains(t, got.refused(t, 404), "Invalid URL (GET /v1/uploads/x)")
			continue
		}
		require.Contains(t, got.refused(t, 404), "Invalid URL (GET ")
	}
	for path, allow := range map[string]string{
		"/v1/uploads": "POST", "/v1/uploads/x/parts": "POST", "/v1/uploads/x/complete": "POST", "/v1/uploads/x/cancel": "POST",
		"/v1/files": "POST, GET", "/v1/files/x": "GET, DELETE", "/v1/files/x/content": "GET",
	} {
		got := a.send("PATCH", path, "", nil)
		require.Contains(t, got.refused(t, 405), "Method PATCH")
		require.Equal(t, allow, got.header.Get("Allow"))
	}
	require.EqualValues(t, 12, a.srv.Stats().Requests[local.OpUnknown]-7)
}

// TestEarlyRefusalReachesTheClient sends 64 MiB that are refused before they are read. One client writes everything
// before it reads, as most HTTP libraries do. The other is Go's, which reads and writes concurrently.
func TestEarlyRefusalReachesTheClient(t *testing.T) {
	a := start(t, local.Options{})
	id := a.create(64 << 20)
	contentType, body := form("data", "f", make([]byte, 64<<20))
	_, larger := form("data", "f", make([]byte, 100<<20))
	for name, test := range map[string]struct {
		key, path string
		body      []byte
		fault     *local.Fault
		status    int
	}{
		"unknown upload": {testKey, "/v1/uploads/upload_x/parts", body, nil, 404},
		"unknown path":   {testKey, "/v1/upload", body, nil, 404},
		"wrong call":     {testKey, "/v1/uploads", body, nil, 400},
		"too large":      {testKey, "/v1/uploads/" + id + "/parts", larger, nil, 413},
		"rate limit":     {testKey, "/v1/uploads/" + id + "/parts", body, &local.Fault{Status: 429, RetryAfter: time.Second}, 429},
	} {
		t.Run(name, func(t *testing.T) {
			a.srv.SetIntercept(func(p local.Point) *local.Fault {
				if p.Op == local.OpPart {
					return test.fault
				}
				return nil
			})
			conn := a.dial()
			conn.write(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
				test.path, test.key, contentType, len(test.body)))
			_, err := conn.conn.Write(test.body)
			require.NoError(t, err)
			require.Equal(t, test.status, conn.read().status)
			// Nothing of the body is left on the connection.
			conn.write("GET /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "\r\n\r\n")
			require.Equal(t, http.StatusOK, conn.read().status)

			polite := *a
			polite.key = test.key
			got, err := polite.try("POST", test.path, contentType, bytes.NewReader(test.body))
			require.NoError(t, err)
			require.Equal(t, test.status, got.status)
		})
	}
	require.Empty(t, a.srv.Uploads()[0].Received)
	require.Zero(t, a.srv.Stats().BodyBytes-int64(len(createBody(64<<20))), "nothing of the refused bodies was taken")
}

func createBody(size int) string {
	return fmt.Sprintf(`{"filename":"a.jsonl","purpose":"batch","bytes":%d,"mime_type":"text/jsonl"}`, size)
}

// A client that asks first (Expect: 100-continue) is answered without its body.
func TestExpectContinue(t *testing.T) {
	a := start(t, local.Options{})
	conn := a.dial()
	head := "Host: x\r\nContent-Type: " + formType + "\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n"
	conn.write("POST /v1/uploads/x/parts HTTP/1.1\r\n" + head + "Authorization: Bearer wrong\r\n\r\n")
	got := conn.read()
	require.NotEmpty(t, got.refused(t, 401))
	_, err := conn.r.ReadByte()
	require.ErrorIs(t, err, io.EOF)

	id := a.create(3)
	body := lines("--b", `Content-Disposition: form-data; name="data"; filename="f"`, "", "abc", "--b--")
	conn = a.dial()
	conn.write(fmt.Sprintf("POST /v1/uploads/%s/parts HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n"+
		"Expect: 100-continue\r\nAuthorization: Bearer %s\r\n\r\n", id, formType, len(body), testKey))
	require.Equal(t, http.StatusContinue, conn.read().status)
	conn.write(body)
	require.Equal(t, http.StatusOK, conn.read().status)
}

func TestStalledClientIsDisconnected(t *testing.T) {
	a := start(t, local.Options{StallTimeout: 200 * time.Millisecond})
	id := a.create(3)
	for name, key := range map[string]string{"408": testKey, "401": "wrong"} {
		t.Run(name, func(t *testing.T) {
			conn := a.dial()
			conn.write("POST /v1/uploads/" + id + "/parts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key +
				"\r\nContent-Type: " + formType + "\r\nContent-Length: 1000000\r\n\r\n--b\r\n")
			require.Equal(t, name, fmt.Sprint(conn.read().status))
			_, err := conn.r.ReadByte()
			require.ErrorIs(t, err, io.EOF)
		})
	}
	require.Empty(t, temporary(t, a))
}

// The deadline of the body must end with it: a long complete needs no further byte from the client.
func TestWorkIsNotAStall(t *testing.T) {
	const stall = time.Second
	a := start(t, local.Options{StallTimeout: stall})
	id := a.create(3)
	part := a.part(id, []byte("abc"))
	a.srv.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage == local.StageReceived {
			return &local.Fault{Delay: 3 * stall} // ends at once if the request counts as stalled
		}
		if p.Stage == local.StageDone && p.Request.Context().Err() != nil {
			return &local.Fault{Status: 599}
		}
		return nil
	})
	require.Equal(t, http.StatusOK, a.complete(id, "", part).status)
}

func TestHugeHeaderIsRefused(t *testing.T) {
	a := start(t, local.Options{})
	conn := a.dial()
	conn.write("GET /v1/files HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n")
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, conn.read().status)
}

// TestCloseAbortsRequests stalls a body for longer than the test may take. Close closes the connections of Serve. It
// cannot close those of another http.Server, but must end their requests too.
func TestCloseAbortsRequests(t *testing.T) {
	for name, own := range map[string]bool{"Serve": true, "another server": false} {
		t.Run(name, func(t *testing.T) {
			a := start(t, local.Options{StallTimeout: time.Hour})
			id := a.create(1 << 20)
			if !own {
				host := httptest.NewServer(a.srv)
				t.Cleanup(host.Close)
				a.addr = host.Listener.Addr().String()
			}
			reading := make(chan struct{}, 1)
			a.srv.SetIntercept(func(p local.Point) *local.Fault {
				if p.Stage == local.StageBody {
					reading <- struct{}{}
				}
				return nil
			})
			conn := a.dial()
			conn.write("POST /v1/uploads/" + id + "/parts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey +
				"\r\nContent-Type: " + formType + "\r\nContent-Length: 1000000\r\n\r\n--b\r\n")
			<-reading
			require.NoError(t, a.srv.Close())
			require.NoError(t, a.srv.Close())
			if own {
				_, err := net.Dial("tcp", a.addr)
				require.Error(t, err)
			} else {
				require.NotEmpty(t, conn.read().refused(t, 503))
			}
		})
	}
}

// The handler must work in any http.Server, and after Close.
func TestHandlerInAnotherServer(t *testing.T) {
	srv, err := local.Open(local.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	host := httptest.NewServer(srv)
	defer host.Close()
	a := &api{t: t, srv: srv, addr: host.Listener.Addr().String(), client: host.Client()}
	require.Equal(t, "abc", string(a.stored(a.upload("batch", []byte("abc")))))
	require.NoError(t, srv.Close())
	require.Contains(t, a.get("/v1/files").refused(t, 503), "shutting down")
	require.NoError(t, srv.Serve(newListener(t)), "there is nothing to do")
}

func newListener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

func TestShutdownWaitsForRequests(t *testing.T) {
	a := start(t, local.Options{})
	arrived, goOn := make(chan struct{}), make(chan struct{})
	a.srv.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage == local.StageDone {
			close(arrived)
			<-goOn
		}
		return nil
	})
	got := make(chan int, 1)
	go func() {
		if answer, err := a.try("GET", "/v1/files", "", nil); err == nil {
			got <- answer.status
		}
		close(got)
	}()
	<-arrived
	down := make(chan error, 1)
	go func() { down <- a.srv.Shutdown(t.Context()) }()
	close(goOn)
	require.NoError(t, <-down)
	require.Equal(t, http.StatusOK, <-got)
}
