//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// served is a running `uploadfs serve`.
type served struct {
	*exec.Cmd
	url    string
	stderr *bytes.Buffer // only after stop or kill
	ended  bool
}

// serve starts a server of the box's user over dir, which is stopped with the test
// if not before.
func (b *box) serve(dir string, args ...string) *served {
	b.Helper()
	cmd := b.command(binary, append([]string{"serve", "--listen", "127.0.0.1:0", "--dir", dir}, args...)...)
	return b.awaitURL(cmd)
}

// awaitURL starts a server and waits for the line with its base URL.
func (b *box) awaitURL(cmd *exec.Cmd) *served {
	b.Helper()
	s := &served{Cmd: cmd, stderr: new(bytes.Buffer)}
	cmd.Stderr = s.stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() { s.stop(b) })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	require.Regexp(b, `^http://[0-9.]+:[0-9]+/v1\n$`, line)
	s.url = strings.TrimSpace(line)
	return s
}

// stop ends the server as people do, and wants it to end well.
func (s *served) stop(b *box) {
	b.Helper()
	if s.ended {
		return
	}
	s.ended = true
	require.NoError(b, s.Process.Signal(syscall.SIGTERM))
	require.NoError(b, s.Wait(), "%s", s.stderr)
}

// kill ends it at once.
func (s *served) kill(b *box) {
	s.ended = true
	require.NoError(b, s.Process.Kill())
	require.Error(b, s.Wait())
}

// use makes the box's commands talk to this server.
func (s *served) use(b *box) {
	b.env = append(b.env, "OPENAI_API_KEY="+testKey, "OPENAI_BASE_URL="+s.url)
}

// self is a box of the user who runs the tests.
func self(t *testing.T) *box { return newBox(t, user{"self", os.Geteuid()}) }

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

// write makes a file of the box's user and returns its path.
func (b *box) write(name, content string) string {
	b.Helper()
	path := b.path(name)
	require.NoError(b, os.WriteFile(path, []byte(content), 0o600))
	require.NoError(b, os.Chown(path, b.user.uid, b.user.uid))
	return path
}

func TestServe(t *testing.T) {
	eachUser(t, func(b *box) {
		s := b.serve(b.path("files"))
		res, err := http.Get(s.url + "/files")
		require.NoError(b, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(b, err)
		require.NoError(b, res.Body.Close())
		require.Equal(b, http.StatusOK, res.StatusCode, "any key is accepted, and none")
		require.JSONEq(b, `{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}`, string(body))
		b.refused(1, "is in use by another server", "serve", "--listen", "127.0.0.1:0", "--dir", b.path("files"))
		b.refused(1, "give another address with --listen",
			"serve", "--listen", strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/v1"), "--dir", b.path("other"))
		s.stop(b)
		require.Equal(b, "uploadfs: any API key is accepted; --api-key-file makes the server check one\n", s.stderr.String())
	})
}

func TestServeChecksTheKey(t *testing.T) {
	b := self(t)
	s := b.serve(b.path("files"), "--api-key-file", b.write("key", testKey+"\n"), "--verbose")
	for key, status := range map[string]int{testKey: http.StatusOK, "sk-another-key-0123456789-0123456789": http.StatusUnauthorized} {
		req, err := http.NewRequest(http.MethodGet, s.url+"/files", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, status, res.StatusCode)
	}
	s.stop(b)
	require.Equal(t, 2, strings.Count(s.stderr.String(), "path=/v1/files"), s.stderr)
	require.NotContains(t, s.stderr.String(), testKey)
}

func TestServeRefuses(t *testing.T) {
	b := self(t)
	dir := b.path("files")
	b.refused(2, "--dir", "serve")
	b.refused(2, "1 arguments given", "serve", "--dir", dir, "more")
	b.refused(2, "500 or 429 or reset or lost", "serve", "--dir", dir, "--fail-every", "2", "--fail-mode", "404")
	b.refused(2, "give both", "serve", "--dir", dir, "--fail-mode", "lost")
	b.refused(2, "fail every -1", "serve", "--dir", dir, "--fail-every=-1")
	b.refused(2, "fail every 0", "serve", "--dir", dir, "--fail-every=0")
	b.refused(2, "upload TTL 0s", "serve", "--dir", dir, "--upload-ttl", "0")
	b.refused(2, "latency -1s", "serve", "--dir", dir, "--latency=-1s")
	b.refused(2, "give a size like 10MiB", "serve", "--dir", dir, "--rate-per-connection", "fast")
	b.refused(2, "give a size like 10MiB", "serve", "--dir", dir, "--rate-total", "0")
	b.refused(2, "give 1 or more", "serve", "--dir", dir, "--requests-per-minute", "0")
	b.refused(2, "127.0.0.1:8080", "serve", "--dir", dir, "--listen", "nowhere")
	b.refused(1, "there is no key", "serve", "--dir", dir, "--listen", ":0")
	b.refused(1, "there is no key", "serve", "--dir", dir, "--listen", "0.0.0.0:0")
	b.refused(1, "no such file", "serve", "--dir", dir, "--api-key-file", b.path("missing"))
	b.refused(1, "is empty", "serve", "--dir", dir, "--api-key-file", b.write("key", "\n"))
	require.NoDirExists(t, dir)
}

// TestServeKeepsStrangersOut fills a server without a key with connections, and sends what
// a page in a browser would.
func TestServeKeepsStrangersOut(t *testing.T) {
	b := self(t)
	s := b.serve(b.path("files"))
	addr := strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/v1")
	ask := func(conn net.Conn, head string) int {
		_, err := fmt.Fprintf(conn, "%s\r\n\r\n", head)
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		return res.StatusCode
	}
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	conn := dial()
	require.Equal(t, http.StatusForbidden, ask(conn, "GET /v1/files HTTP/1.1\r\nHost: evil.example"))
	require.Equal(t, http.StatusForbidden, ask(conn,
		"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nContent-Length: 0"))
	require.Equal(t, http.StatusOK, ask(conn, "GET /v1/files HTTP/1.1\r\nHost: localhost"))
	for range 255 {
		require.Equal(t, http.StatusOK, ask(dial(), "GET /v1/files HTTP/1.1\r\nHost: localhost"))
	}
	res, err := http.ReadResponse(bufio.NewReader(dial()), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
}

// TestServeBoundsRequests sends more requests at once than a minute allows.
func TestServeBoundsRequests(t *testing.T) {
	b := self(t)
	s := b.serve(b.path("files"), "--requests-per-minute", "1", "--rate-total", "10MiB")
	ask := func() *http.Response {
		res, err := http.Get(s.url + "/files")
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res
	}
	require.Equal(t, http.StatusOK, ask().StatusCode)
	res := ask()
	require.Equal(t, http.StatusTooManyRequests, res.StatusCode)
	require.Regexp(t, `^[1-9][0-9]?$`, res.Header.Get("Retry-After"))
}

func TestListenAddress(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0"} {
		_, err := listenAddress(listen, false)
		require.NoError(t, err, listen)
	}
	for _, listen := range []string{":80", "0.0.0.0:80", "[::]:80", "192.0.2.1:80"} {
		_, err := listenAddress(listen, false)
		require.ErrorContains(t, err, "there is no key", listen)
		_, err = listenAddress(listen, true)
		require.NoError(t, err, listen)
	}
}

// What was acknowledged is there after the process was killed.
func TestServeSurvivesKill(t *testing.T) {
	b := self(t)
	s := b.serve(b.path("files"))
	s.use(b)
	upload := idOf(b, b.ok("uploads", "create", "--bytes", "10", "--filename", "f", "--mime-type", "text/plain", "--purpose", "batch"))
	first := idOf(b, b.ok("uploads:parts", "create", "--upload-id", upload, "--data-string", "hello"))
	second := idOf(b, b.ok("uploads:parts", "create", "--upload-id", upload, "--data-string", "world"))
	s.kill(b)
	s = b.serve(b.path("files"))
	s.use(b)
	var done struct{ File struct{ ID string } }
	require.NoError(t, json.Unmarshal([]byte(b.ok("uploads", "complete", "--upload-id", upload, "--part-id", first, "--part-id", second)), &done))
	s.kill(b)
	s = b.serve(b.path("files"))
	res, err := http.Get(s.url + "/files/" + done.File.ID + "/content")
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "helloworld", string(body))
}

func TestServeHasTheOtherChoice(t *testing.T) {
	post := func(url, contentType, body string) (status int, answer string) {
		res, err := http.Post(url, contentType, strings.NewReader(body))
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(b)
	}
	// A part as the published curl example sends it: without a filename.
	form := strings.ReplaceAll("--x\nContent-Disposition: form-data; name=\"data\"\n\nhello\n--x--\n", "\n", "\r\n")
	id := regexp.MustCompile(`"id":"([^"]+)"`)
	for _, strict := range []bool{false, true} {
		b := self(t)
		var flags []string
		if strict {
			flags = []string{"--strict-filename", "--count-unlisted-parts"}
		}
		s := b.serve(b.path("files"), flags...)
		s.use(b)
		upload := idOf(b, b.ok("uploads", "create", "--bytes", "5", "--filename", "f", "--mime-type", "text/plain", "--purpose", "batch"))
		status, answer := post(s.url+"/uploads/"+upload+"/parts", "multipart/form-data; boundary=x", form)
		if strict {
			require.Equal(t, http.StatusBadRequest, status)
			require.Contains(t, answer, "could not understand")
			answer = b.ok("uploads:parts", "create", "--upload-id", upload, "--data-string", "hello")
		} else {
			require.Equal(t, http.StatusOK, status, answer)
		}
		part := id.FindStringSubmatch(answer)[1]
		b.ok("uploads:parts", "create", "--upload-id", upload, "--data-string", "unlisted")
		r := b.uploadfs("uploads", "complete", "--upload-id", upload, "--part-id", part)
		require.Equal(t, strict, r.code == 1, r.stderr)
	}
}

func TestServeUploadTTL(t *testing.T) {
	b := self(t)
	s := b.serve(b.path("files"), "--upload-ttl", "1ms")
	s.use(b)
	upload := idOf(b, b.ok("uploads", "create", "--bytes", "5", "--filename", "f", "--mime-type", "text/plain", "--purpose", "batch"))
	b.refused(1, "has expired", "uploads:parts", "create", "--upload-id", upload, "--data-string", "hello")
}

// idOf is the ID of the object that a raw call has printed.
func idOf(b *box, line string) string {
	b.Helper()
	var o struct{ ID string }
	require.NoError(b, json.Unmarshal([]byte(line), &o))
	require.NotEmpty(b, o.ID)
	return o.ID
}
