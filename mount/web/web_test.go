package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/state"
)

// served is a server with a source that the test changes.
type served struct {
	*Server
	t    *testing.T
	view atomic.Pointer[View]
	fail atomic.Pointer[error]
}

const testToken = "the-token"

func serve(t *testing.T, addr string) *served {
	return serveMetrics(t, addr, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics") })
}

func serveMetrics(t *testing.T, addr string, metrics http.HandlerFunc) *served {
	s := &served{t: t}
	s.view.Store(&View{MountPoint: "/mnt/a"})
	var err error
	s.Server, err = Listen(addr, testToken, Source{
		Status:  func(context.Context) (any, error) { return map[string]string{"mount_point": "/mnt/a"}, s.failure() },
		View:    func(context.Context) (View, error) { return *s.view.Load(), s.failure() },
		Sent:    func() int64 { return 7 },
		Metrics: metrics,
		Healthy: s.failure,
	}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func (s *served) failure() error {
	if err := s.fail.Load(); err != nil {
		return *err
	}
	return nil
}

// ask makes a request to the listener, whatever host it names.
func (s *served) ask(method, host, path string, header ...string) (int, string, http.Header) {
	s.t.Helper()
	u := url.URL{Scheme: "http", Host: s.listener.Addr().String()}
	req, err := http.NewRequestWithContext(s.t.Context(), method, u.String()+path, nil)
	require.NoError(s.t, err)
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return resp.StatusCode, string(body), resp.Header
}

// What names files needs the token. On loopback, everything needs a Host of loopback.
func TestWhoMayAsk(t *testing.T) {
	local, everywhere := serve(t, "127.0.0.1:0"), serve(t, "0.0.0.0:0")
	for path, public := range map[string]bool{
		"/": false, "/status.json": false, "/events": false,
		"/metrics": true, "/healthz": true, "/page.js": true, "/page.css": true,
	} {
		for _, host := range []string{"evil.example", "10.1.2.3:8300", "localhost.evil.example"} {
			code, _, _ := local.ask("GET", host, path+"?token="+testToken)
			require.Equal(t, http.StatusMisdirectedRequest, code, "%s of %s", path, host)
			if public {
				code, _, _ = everywhere.ask("GET", host, path)
				require.Equal(t, http.StatusOK, code, "a probe uses the pod's address: %s", path)
			}
		}
		for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1:8300", "[::1]:8300", "127.8.8.8"} {
			code, body, _ := local.ask("GET", host, path+"?token=wrong")
			want := http.StatusForbidden
			if public {
				want = http.StatusOK
			}
			require.Equal(t, want, code, "%s of %s", path, host)
			require.NotContains(t, body, testToken)
		}
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			code, _, _ := local.ask(method, "localhost", path+"?token="+testToken)
			require.Equal(t, http.StatusMethodNotAllowed, code, "nothing changes anything")
		}
	}
	code, body, header := local.ask("GET", "localhost", "/status.json", "Authorization", "Bearer "+testToken)
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"mount_point": "/mnt/a"}`, body)
	require.Equal(t, "no-store", header.Get("Cache-Control"))
	require.Empty(t, header.Get("Access-Control-Allow-Origin"))
	code, _, _ = local.ask("GET", "localhost", "/static/page.html?token="+testToken)
	require.Equal(t, http.StatusNotFound, code)
	require.Regexp(t, `^http://127\.0\.0\.1:\d+/\?token=the-token$`, local.URL())
	require.NotContains(t, everywhere.URL(), "0.0.0.0")
}

func TestHealth(t *testing.T) {
	s := serve(t, "[::1]:0")
	code, body, _ := s.ask("GET", "localhost", "/healthz")
	require.Equal(t, "ok\n", body)
	require.Equal(t, http.StatusOK, code)
	err := errors.New("the mount is ending")
	s.fail.Store(&err)
	code, body, _ = s.ask("GET", "localhost", "/healthz")
	require.Equal(t, "the mount is ending\n", body)
	require.Equal(t, http.StatusServiceUnavailable, code)
	code, _, _ = s.ask("GET", "localhost", "/status.json?token="+testToken)
	require.Equal(t, http.StatusServiceUnavailable, code)
}

// A client that does not read its answer is given up: it would keep a goroutine, a
// connection and the answer for ever.
func TestSilentReaders(t *testing.T) {
	writeTimeout = 50 * time.Millisecond
	defer func() { writeTimeout = answerTimeout }()
	ended := make(chan error, 1)
	s := serveMetrics(t, "127.0.0.1:0", func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.Copy(w, zeros{})
		ended <- err
	})
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	select {
	case err := <-ended:
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	case <-time.After(10 * time.Second):
		t.Fatal("it still writes")
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Each event is the whole view, with the samples that the last one did not have. The
// stream ends with the server.
func TestEvents(t *testing.T) {
	writeTimeout = time.Millisecond // of other answers
	defer func() { writeTimeout = answerTimeout }()
	s := serve(t, "127.0.0.1:0")
	s.plot.add(1)
	resp, err := http.Get(strings.Replace(s.URL(), "/?", "/events?", 1))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	next := func() (v View) {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				require.NoError(t, json.Unmarshal([]byte(data), &v))
				return v
			}
		}
		t.Fatal("the stream has ended")
		return v
	}
	first := next()
	require.Equal(t, "/mnt/a", first.MountPoint)
	require.Equal(t, int64(7), first.Sent)
	require.Equal(t, int64(1), first.Rates[0])
	s.view.Store(&View{Files: []File{{Path: "<b>", State: state.Uploading, Parts: "as"}}})
	var second View
	for second = next(); len(second.Files) == 0; second = next() {
	}
	require.Equal(t, "as", second.Files[0].Parts)
	require.NotContains(t, second.Rates, int64(1), "the page has it already")
	s.stop()
	for lines.Scan() {
	}
}

func TestPlotKeepsTheLastMinutes(t *testing.T) {
	var p plot
	for i := range int64(plotted + 10) {
		p.add(i)
	}
	all, n := p.since(0)
	require.Len(t, all, plotted)
	require.Equal(t, int64(plotted+9), all[plotted-1])
	last, _ := p.since(n - 2)
	require.Equal(t, []int64{plotted + 8, plotted + 9}, last)
	none, _ := p.since(n)
	require.Empty(t, none)
	p.add(-5)
	last, _ = p.since(n)
	require.Equal(t, []int64{0}, last)
}

func TestParseListen(t *testing.T) {
	for given, want := range map[string]string{
		"8300": "127.0.0.1:8300", ":8300": "127.0.0.1:8300", "0.0.0.0:1": "0.0.0.0:1", "[::1]:0": "[::1]:0", "localhost:80": "localhost:80",
	} {
		addr, err := ParseListen(given)
		require.NoError(t, err)
		require.Equal(t, want, addr)
	}
	for _, given := range []string{"", "127.0.0.1:", "::1", "a:b:c"} {
		_, err := ParseListen(given)
		require.Error(t, err, given)
	}
}

// The page asks no other host for anything.
func TestPageIsAlone(t *testing.T) {
	address := regexp.MustCompile(`(?i)\b(https?:|ftp:|wss?:)?//[a-z]|url\(|@import`)
	require.NoError(t, fs.WalkDir(static, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := static.ReadFile(path)
		require.NotRegexp(t, address, string(text), path)
		require.NotContains(t, string(text), "innerHTML", path)
		return err
	}))
}
