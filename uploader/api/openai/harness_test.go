package openai_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/api/openai"
	"uploadfs/uploader/api/retry"
)

// proxied handles the requests to the proxy that the environment names.
var proxied atomic.Value // of func(http.ResponseWriter, *http.Request)

func TestMain(m *testing.M) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied.Load().(func(http.ResponseWriter, *http.Request))(w, r)
	}))
	for _, name := range []string{"HTTP_PROXY", "http_proxy"} {
		if err := os.Setenv(name, proxy.URL); err != nil {
			panic(err)
		}
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) // the proxy's
}

const key = "sk-test-0123456789abcdef"

var spec = api.Spec{Filename: "train.jsonl", Purpose: "batch", MimeType: "text/jsonl", Bytes: 6}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// newBackend returns a Backend for a server's URL, with the test's key unless
// cfg has another.
func newBackend(t testing.TB, url string, cfg openai.Config) *openai.Backend {
	t.Helper()
	cfg.BaseURL = url + "/v1"
	if cfg.Key == nil {
		cfg.Key = openai.StaticKey(key)
	}
	b, err := openai.New(cfg)
	require.NoError(t, err)
	t.Cleanup(b.Close)
	return b
}

// fake runs handler behind a Backend.
func fake(t testing.TB, cfg openai.Config, handler http.HandlerFunc) *openai.Backend {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return newBackend(t, server.URL, cfg)
}

// answer sends JSON.
func answer(w http.ResponseWriter, status int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(object) // the client may have gone
}

type object = map[string]any

func apiError(message, code string) object {
	return object{"error": object{"message": message, "type": "invalid_request_error", "param": nil, "code": code}}
}

// testServer is a strict API server over real connections.
type testServer struct {
	*local.Server
	url   string
	roots *tls.Config
	skew  atomic.Int64 // of its clock
	conns atomic.Int64 // opened
	open  atomic.Int64 // open now
	peak  atomic.Int64 // the most that were open
}

// serve starts a local API, over TLS with HTTP/2 on offer if encrypted.
func serve(t testing.TB, encrypted bool) *testServer {
	t.Helper()
	l := &testServer{}
	api, err := local.Open(local.Options{
		Dir: t.TempDir(),
		Key: key,
		Now: func() time.Time { return time.Now().Add(time.Duration(l.skew.Load())) },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, api.Close()) })
	l.Server = api
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Proto != "HTTP/1.1" {
			t.Errorf("%s %s came over %s", r.Method, r.URL.Path, r.Proto)
		}
		api.ServeHTTP(w, r)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			l.conns.Add(1)
			now := l.open.Add(1)
			for peak := l.peak.Load(); now > peak && !l.peak.CompareAndSwap(peak, now); peak = l.peak.Load() {
			}
		case http.StateClosed, http.StateHijacked:
			l.open.Add(-1)
		}
	}
	if encrypted {
		server.EnableHTTP2 = true
		server.StartTLS()
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		l.roots = &tls.Config{RootCAs: roots}
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	l.url = server.URL
	return l
}

func (l *testServer) content(t testing.TB, fileID string) []byte {
	t.Helper()
	r, err := l.OpenContent(fileID)
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return b
}

func (l *testServer) fixture(b api.Backend) apitest.Fixture {
	return apitest.Fixture{
		Backend:   b,
		Content:   l.content,
		Expire:    func(testing.TB, string) { l.skew.Add(int64(2 * time.Hour)) },
		NullBytes: func(testing.TB) { l.SetFaults(local.Faults{NullBytes: true}) },
	}
}

func TestSuite(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", encrypted), func(t *testing.T) {
			apitest.Suite(t, func(t *testing.T) apitest.Fixture {
				l := serve(t, encrypted)
				return l.fixture(newBackend(t, l.url, openai.Config{TLS: l.roots}))
			})
		})
	}
}

func TestSuiteBehindRetry(t *testing.T) {
	apitest.Suite(t, func(t *testing.T) apitest.Fixture {
		l := serve(t, false)
		l.SetIntercept(everySecond(&local.Fault{Status: http.StatusTooManyRequests, Message: "Rate limit reached."}))
		return l.fixture(retry.New(newBackend(t, l.url, openai.Config{}), retry.Options{First: time.Millisecond, Max: 8 * time.Millisecond}))
	})
}

// everySecond fails every second request at its beginning.
func everySecond(fault *local.Fault) local.InterceptFunc {
	var n atomic.Int64
	return func(p local.Point) *local.Fault {
		if p.Stage == local.StageHead && n.Add(1)%2 == 1 {
			return fault
		}
		return nil
	}
}
