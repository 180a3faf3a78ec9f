package openai_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
)

// rawServer reads the head of the first request of each connection, passes the
// connection to serve, and closes it when serve returns.
func rawServer(t testing.TB, config *tls.Config, serve func(net.Conn, *http.Request)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	scheme := "http://"
	if config != nil {
		scheme = "https://"
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			if config != nil {
				conn = tls.Server(conn, config)
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				serve(conn, r)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return scheme + listener.Addr().String()
}

// TestEarlyAnswer sends parts to a server that refuses each while it is being sent,
// and then closes the connection with most of the part unread.
func TestEarlyAnswer(t *testing.T) {
	encrypted := httptest.NewTLSServer(nil) // for its certificate only
	t.Cleanup(encrypted.Close)
	for status, want := range map[int]api.Kind{
		http.StatusUnauthorized:          api.Denied,
		http.StatusRequestEntityTooLarge: api.TooLarge,
		http.StatusTooManyRequests:       api.Transient,
	} {
		for name, body := range map[string]string{"json": `{"error":{"message":"Not this one."}}`, "empty": ""} {
			for scheme, config := range map[string]*tls.Config{"http": nil, "https": encrypted.TLS} {
				t.Run(fmt.Sprintf("%d %s %s", status, name, scheme), func(t *testing.T) {
					t.Parallel()
					url := rawServer(t, config, func(conn net.Conn, _ *http.Request) {
						_, err := fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: %d\r\nRetry-After: 7\r\n\r\n%s", status, len(body), body)
						if err != nil {
							t.Error(err)
						}
					})
					b := newBackend(t, url, openai.Config{TLS: &tls.Config{InsecureSkipVerify: true}})
					for range 5 {
						_, err := b.AddPart(t.Context(), "upload_1", io.NewSectionReader(allZeros{}, 0, 64<<20))
						e := (*api.Error)(nil)
						require.ErrorAs(t, err, &e)
						require.Equal(t, status, e.Status, "%v", err)
						require.Equal(t, want, e.Kind)
						require.Equal(t, 7*time.Second, e.RetryAfter)
						if body != "" {
							require.Equal(t, "Not this one.", e.Message)
						}
					}
				})
			}
		}
	}
}

// TestEarlyAnswerOnAnOpenConnection has the server keep the connection open.
func TestEarlyAnswerOnAnOpenConnection(t *testing.T) {
	release := make(chan struct{})
	url := rawServer(t, nil, func(conn net.Conn, _ *http.Request) {
		_, _ = io.WriteString(conn, "HTTP/1.1 401 X\r\nContent-Length: 2\r\n\r\n{}")
		<-release
	})
	defer close(release)
	_, err := newBackend(t, url, openai.Config{}).AddPart(t.Context(), "upload_1", io.NewSectionReader(allZeros{}, 0, 64<<20))
	require.EqualError(t, err, "part upload_1: 401 Unauthorized: {}")
}

func TestGarbage(t *testing.T) {
	const html = "<html><head><style>b{}</style><title>Welcome\r\n</title></head><b>Log in \x1b[31mhere</b></html>"
	file := object{"id": "file-1", "object": "file", "bytes": 6, "filename": "train.jsonl", "purpose": "batch"}
	completed := func(change object) object {
		o := object{"id": "upload_1", "object": "upload", "bytes": 6, "status": "completed", "file": file}
		for k, v := range change {
			o[k] = v
		}
		return o
	}
	create := func(ctx context.Context, b api.Backend) error { _, err := b.Create(ctx, spec); return err }
	part := func(ctx context.Context, b api.Backend) error {
		_, err := b.AddPart(ctx, "upload_1", section([]byte("abcdef")))
		return err
	}
	complete := func(ctx context.Context, b api.Backend) error {
		_, err := b.Complete(ctx, "upload_1", []string{"part_1"}, "")
		return err
	}
	cancel := func(ctx context.Context, b api.Backend) error { return b.Cancel(ctx, "upload_1") }
	find := func(ctx context.Context, b api.Backend) error {
		_, err := b.FindFiles(ctx, spec, time.Unix(0, 0))
		return err
	}
	for name, test := range map[string]struct {
		call   func(context.Context, api.Backend) error
		answer any // a string is sent as it is
		want   string
	}{
		"html":                {create, html, "create: unexpected answer (200 OK): not a JSON object: Welcome Log in [31mhere"},
		"empty":               {create, "", "create: unexpected answer (200 OK): not a JSON object"},
		"half JSON":           {part, `{"id": "part_1"`, `not a JSON object: {"id": "part_1"`},
		"null":                {part, "null", "not a JSON object: null"},
		"list":                {part, "[]", "not a JSON object: []"},
		"no upload id":        {create, object{"object": "upload"}, "no id"},
		"another object":      {create, file, `object "file" instead of "upload"`},
		"other bytes":         {create, object{"id": "upload_1", "bytes": 7}, "declared 6 bytes, the upload says 7"},
		"no part id":          {part, object{"object": "upload.part"}, "part upload_1: unexpected answer (200 OK): no id"},
		"part of another":     {part, object{"id": "part_1", "upload_id": "upload_2"}, `the part is of upload "upload_2"`},
		"no file":             {complete, completed(object{"file": nil}), "file: no id"},
		"file without id":     {complete, completed(object{"file": object{"bytes": 6}}), "file: no id"},
		"not completed":       {complete, completed(object{"status": "pending"}), `the upload's status is "pending"`},
		"file of other bytes": {complete, completed(object{"bytes": 7}), "the upload has 7 bytes, its file 6"},
		"cancelled what":      {cancel, object{}, "no id"},
		"list without data":   {find, object{"object": "list"}, "a list without data"},
		"endless list":        {find, object{"data": []any{object{"created_at": 1}}, "has_more": true}, "where the next begins"},
	} {
		t.Run(name, func(t *testing.T) {
			b := fake(t, openai.Config{}, func(w http.ResponseWriter, _ *http.Request) {
				if s, ok := test.answer.(string); ok {
					_, _ = io.WriteString(w, s)
					return
				}
				answer(w, http.StatusOK, test.answer)
			})
			err := test.call(t.Context(), b)
			require.ErrorContains(t, err, test.want)
			require.Equal(t, api.Transient, api.KindOf(err))
			require.NotErrorIs(t, err, api.ErrNotSent)
			e := (*api.Error)(nil)
			require.ErrorAs(t, err, &e)
			require.Equal(t, http.StatusOK, e.Status)
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, err.Error(), "\x1b")
		})
	}
}

func TestAnswerCutShort(t *testing.T) {
	url := rawServer(t, nil, func(conn net.Conn, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"id\": ")
	})
	_, err := newBackend(t, url, openai.Config{}).Create(t.Context(), spec)
	require.EqualError(t, err, `create: unexpected answer (200 OK): cut short: unexpected EOF: {"id":`)
	require.Equal(t, api.Transient, api.KindOf(err))
}

// TestRedirects answers a 307 or its like to each call. Only a 307 to the same server is
// followed, and once.
func TestRedirects(t *testing.T) {
	const moved = "/v2"
	content := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	for name, test := range map[string]struct {
		status   int
		location func(server string) string
		want     string // the error, with SERVER for the server; "" where the call succeeds
	}{
		"307 to a path":        {307, func(string) string { return moved + "/PATH" }, ""},
		"307 to the server":    {307, func(s string) string { return s + moved + "/PATH" }, ""},
		"307 again":            {307, func(string) string { return "/v1/PATH" }, "the server redirects to /v1/PATH: set the base URL"},
		"307 elsewhere":        {307, func(string) string { return "http://127.0.0.1:1/v1/PATH" }, "redirects to http://127.0.0.1:1/v1/PATH: set the base URL to where the API is"},
		"307 to another port":  {307, func(s string) string { return s + "1" + moved }, "redirects to SERVER1/v2: set the base URL"},
		"307 to https":         {307, func(s string) string { return "https" + strings.TrimPrefix(s, "http") + moved }, "set the base URL"},
		"307 with a password":  {307, func(s string) string { return "http://me:secret@" + strings.TrimPrefix(s, "http://") + moved }, "redirects to http://me:xxxxx@"},
		"307 to nowhere":       {307, func(string) string { return "" }, "the answer is not the API's: check the base URL (307 Temporary Redirect)"},
		"308":                  {308, func(string) string { return moved + "/PATH" }, "redirects to /v2/PATH: set the base URL"},
		"302 with a signature": {302, func(string) string { return "/login?token=secret#secret" }, "redirects to /login: set the base URL"},
		"301":                  {301, func(string) string { return moved }, "redirects to /v2: set the base URL to where the API is (301 Moved Permanently)"},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				body, _ := io.ReadAll(r.Body)
				if r.Header.Get("Authorization") != "Bearer "+key {
					t.Errorf("%s came without the key", r.URL.Path)
				}
				path, isNew := strings.CutPrefix(r.URL.Path, moved+"/")
				if !isNew {
					path = strings.TrimPrefix(r.URL.Path, "/v1/")
					if to := test.location("http://" + r.Host); to != "" {
						w.Header().Set("Location", strings.ReplaceAll(to, "PATH", path))
					}
					w.WriteHeader(test.status)
					return
				}
				switch path {
				case "uploads":
					if !bytes.Contains(body, []byte(spec.Filename)) {
						t.Errorf("the body is %q", body)
					}
					answer(w, http.StatusOK, object{"id": "upload_1"})
				case "uploads/upload_1/parts":
					if !bytes.Contains(body, content) || r.ContentLength != int64(len(body)) {
						t.Errorf("the body has %d bytes", len(body))
					}
					answer(w, http.StatusOK, object{"id": "part_1"})
				}
			}))
			t.Cleanup(server.Close)
			b := newBackend(t, server.URL, openai.Config{})
			_, createErr := b.Create(t.Context(), spec)
			_, partErr := b.AddPart(t.Context(), "upload_1", section(content))
			if test.want == "" {
				require.NoError(t, createErr)
				require.NoError(t, partErr)
				require.EqualValues(t, 4, requests.Load())
				return
			}
			for path, err := range map[string]error{"uploads": createErr, "uploads/upload_1/parts": partErr} {
				want := strings.ReplaceAll(strings.ReplaceAll(test.want, "SERVER", server.URL), "PATH", path)
				require.ErrorContains(t, err, want)
				require.Equal(t, api.Refused, api.KindOf(err))
				require.NotContains(t, err.Error(), "secret")
			}
			require.LessOrEqual(t, requests.Load(), int64(4))
		})
	}
}
