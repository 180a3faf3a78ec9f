package local_test

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

const testKey = "sk-test-0123456789abcdefghijklmnop"

// api is a server on loopback and a plain HTTP client for it. The tests write their requests by hand, so that no SDK
// changes them.
type api struct {
	t      testing.TB
	srv    *local.Server
	dir    string
	addr   string
	key    string
	client *http.Client
}

// start opens a server over a directory of its own and serves it until the test ends.
func start(t testing.TB, opt local.Options) *api {
	t.Helper()
	if opt.Dir == "" {
		opt.Dir = t.TempDir()
	}
	opt.Key = testKey
	srv, err := local.Open(opt)
	require.NoError(t, err)
	return serve(t, srv, opt.Dir)
}

func serve(t testing.TB, srv *local.Server, dir string) *api {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	a := client(t, l.Addr().String())
	a.srv, a.dir = srv, dir
	t.Cleanup(func() {
		require.NoError(t, srv.Close())
		require.NoError(t, <-served)
	})
	return a
}

// client is an api without a server of this process.
func client(t testing.TB, addr string) *api {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return &api{t: t, addr: addr, key: testKey, client: &http.Client{Transport: transport}}
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// object decodes the answer, which must have exactly the wanted members.
func (a answer) object(t testing.TB, members ...string) map[string]any {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	var o map[string]any
	require.NoError(t, json.Unmarshal(a.body, &o))
	got := make([]string, 0, len(o))
	for name := range o {
		got = append(got, name)
	}
	require.ElementsMatch(t, members, got)
	return o
}

// refused checks status and envelope, and returns the message.
func (a answer) refused(t testing.TB, status int) string {
	t.Helper()
	require.Equal(t, status, a.status, "%s", a.body)
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	var envelope map[string]map[string]any
	require.NoError(t, json.Unmarshal(a.body, &envelope), "%s", a.body)
	require.Len(t, envelope, 1)
	e := envelope["error"]
	require.Len(t, e, 4, "message, type, param, code: %s", a.body)
	require.Contains(t, []any{"invalid_request_error", "server_error"}, e["type"])
	require.Equal(t, status >= 500, e["type"] == "server_error")
	require.Contains(t, e, "param")
	require.Contains(t, e, "code")
	message, ok := e["message"].(string)
	require.True(t, ok && message != "", "%s", a.body)
	return message
}

// try sends a request; an error is a broken connection.
func (a *api) try(method, path, contentType string, body io.Reader) (answer, error) {
	req, err := http.NewRequest(method, "http://"+a.addr+path, body)
	require.NoError(a.t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return a.do(req)
}

func (a *api) do(req *http.Request) (answer, error) {
	if a.key != "" {
		req.Header.Set("Authorization", "Bearer "+a.key)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	require.Regexp(a.t, `^req_[a-z0-9]{20,}$`, resp.Header.Get("X-Request-Id"))
	return answer{resp.StatusCode, resp.Header, b}, nil
}

// tryID sends a request and returns the ID of the answered object; anything but a 200 is an error.
func (a *api) tryID(method, path, contentType string, body []byte) (string, error) {
	got, err := a.try(method, path, contentType, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	if got.status != http.StatusOK {
		return "", fmt.Errorf("%d: %s", got.status, got.body)
	}
	var o struct{ ID string }
	err = json.Unmarshal(got.body, &o)
	return o.ID, err
}

func (a *api) send(method, path, contentType string, body io.Reader) answer {
	a.t.Helper()
	got, err := a.try(method, path, contentType, body)
	require.NoError(a.t, err)
	return got
}

func (a *api) get(path string) answer { a.t.Helper(); return a.send("GET", path, "", nil) }

func (a *api) postJSON(path, body string) answer {
	a.t.Helper()
	return a.send("POST", path, "application/json", bytes.NewReader([]byte(body)))
}

// form is a multipart/form-data body of one field.
func form(name, filename string, content []byte) (contentType string, body []byte) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	disposition := fmt.Sprintf(`form-data; name=%q`, name)
	if filename != "" {
		disposition += fmt.Sprintf(`; filename=%q`, filename)
	}
	field, err := w.CreatePart(map[string][]string{
		"Content-Disposition": {disposition}, "Content-Type": {"application/octet-stream"},
	})
	if err != nil {
		panic(err)
	}
	field.Write(content)
	w.Close()
	return w.FormDataContentType(), b.Bytes()
}

func (a *api) tryPart(uploadID string, content []byte) (answer, error) {
	contentType, body := form("data", "chunk", content)
	return a.try("POST", "/v1/uploads/"+uploadID+"/parts", contentType, bytes.NewReader(body))
}

// part adds a part and returns its ID.
func (a *api) part(uploadID string, content []byte) string {
	a.t.Helper()
	got, err := a.tryPart(uploadID, content)
	require.NoError(a.t, err)
	o := got.object(a.t, "id", "object", "created_at", "upload_id")
	require.Equal(a.t, "upload.part", o["object"])
	require.Equal(a.t, uploadID, o["upload_id"])
	return o["id"].(string)
}

// create makes an Upload of size bytes and returns its ID.
func (a *api) create(size int) string { a.t.Helper(); return a.createFor("batch", size) }

func (a *api) createFor(purpose string, size int) string {
	a.t.Helper()
	got := a.postJSON("/v1/uploads",
		fmt.Sprintf(`{"filename":"a.jsonl","purpose":%q,"bytes":%d,"mime_type":"text/jsonl"}`, purpose, size))
	return got.object(a.t, uploadMembers...)["id"].(string)
}

var (
	uploadMembers = []string{"id", "object", "bytes", "created_at", "filename", "purpose", "status", "expires_at", "file"}
	fileMembers   = []string{"id", "object", "bytes", "created_at", "filename", "purpose", "status"}
)

func (a *api) complete(uploadID, md5 string, partIDs ...string) answer {
	a.t.Helper()
	got, err := a.tryComplete(uploadID, md5, partIDs...)
	require.NoError(a.t, err)
	return got
}

func (a *api) tryComplete(uploadID, md5 string, partIDs ...string) (answer, error) {
	body := map[string]any{"part_ids": partIDs}
	if md5 != "" {
		body["md5"] = md5
	}
	b, err := json.Marshal(body)
	require.NoError(a.t, err)
	return a.try("POST", "/v1/uploads/"+uploadID+"/complete", "application/json", bytes.NewReader(b))
}

// upload makes a File of content in one part and returns its ID.
func (a *api) upload(purpose string, content []byte) (fileID string) {
	a.t.Helper()
	id := a.createFor(purpose, len(content))
	o := a.complete(id, sum(content), a.part(id, content)).object(a.t, uploadMembers...)
	return o["file"].(map[string]any)["id"].(string)
}

// stored reads a File directly, not through the API.
func (a *api) stored(fileID string) []byte {
	a.t.Helper()
	r, err := a.srv.OpenContent(fileID)
	require.NoError(a.t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(a.t, err)
	return b
}

func sum(content []byte) string {
	s := md5.Sum(content)
	return hex.EncodeToString(s[:])
}

// noise returns n bytes, the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	rand.NewChaCha8(key).Read(b)
	return b
}

// clock is a settable time.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// rawConn is a connection that writes any bytes, and reads only when the test says so.
type rawConn struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (a *api) dial() *rawConn {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.addr)
	require.NoError(a.t, err)
	a.t.Cleanup(func() { conn.Close() })
	return &rawConn{a.t, conn, bufio.NewReader(conn)}
}

func (c *rawConn) write(s string) {
	c.t.Helper()
	_, err := io.WriteString(c.conn, s)
	require.NoError(c.t, err)
}

func (c *rawConn) close() { require.NoError(c.t, c.conn.Close()) }

// read reads one answer to its end.
func (c *rawConn) read() answer {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(c.t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return answer{resp.StatusCode, resp.Header, b}
}

// stream sends a part with a Content-Length and without holding it in memory.
func (a *api) stream(uploadID string, content *io.SectionReader) error {
	var framing bytes.Buffer
	w := multipart.NewWriter(&framing)
	if _, err := w.CreateFormFile("data", "chunk"); err != nil {
		return err
	}
	head := framing.Len()
	if err := w.Close(); err != nil {
		return err
	}
	body := io.MultiReader(bytes.NewReader(framing.Bytes()[:head]), content, bytes.NewReader(framing.Bytes()[head:]))
	req, err := http.NewRequest("POST", "http://"+a.addr+"/v1/uploads/"+uploadID+"/parts", body)
	if err != nil {
		return err
	}
	req.ContentLength = int64(framing.Len()) + content.Size()
	req.Header.Set("Content-Type", w.FormDataContentType())
	got, err := a.do(req)
	if err == nil && got.status != http.StatusOK {
		err = fmt.Errorf("%d: %s", got.status, got.body)
	}
	return err
}

// streamFile sends the first size bytes of a file as a part.
func (a *api) streamFile(uploadID, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.stream(uploadID, io.NewSectionReader(f, 0, size))
}
