//go:build linux

package main

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"uploadfs/uploader/api"

	"github.com/stretchr/testify/require"
)

var createArgs = []string{"uploads", "create", "--bytes", "10", "--filename", "f", "--mime-type", "text/plain", "--purpose", "batch"}

func TestRawCalls(t *testing.T) {
	eachUser(t, func(b *box) {
		a := newAPI(b.T)
		a.use(b)
		line := b.ok(append(createArgs, "--expires-after.anchor", "created_at", "--expires-after.seconds", "7200")...)
		require.Regexp(b, `^\{"id":"upload_[^\n]*"status":"pending"[^\n]*\}\n$`, line)
		upload := idOf(b, line)

		// A path, @path, standard input, and text.
		path := b.write("chunk", "abc")
		parts := []string{
			b.ok("uploads:parts", "create", "--upload-id", upload, "--data", path),
			b.ok("uploads:parts", "create", "--upload-id", upload, "--data", "@"+path),
			b.shOK(fmt.Sprintf("printf de | %s uploads:parts create --upload-id %s --data -", binary, upload)),
			b.ok("uploads:parts", "create", "--upload-id", upload, "--data-string", "fg"),
		}
		args := []string{"uploads", "complete", "--upload-id", upload, "--md5", fmt.Sprintf("%x", md5.Sum([]byte("abcabcdefg")))}
		for _, p := range parts {
			args = append(args, "--part-id", idOf(b, p))
		}
		line = b.ok(args...)
		var done struct {
			Status string
			File   struct{ ID string }
		}
		require.NoError(b, json.Unmarshal([]byte(line), &done))
		require.Equal(b, "completed", done.Status)
		r, err := a.OpenContent(done.File.ID)
		require.NoError(b, err)
		content, err := io.ReadAll(r)
		require.NoError(b, err)
		require.NoError(b, r.Close())
		require.Equal(b, "abcabcdefg", string(content))

		b.refused(1, "is already completed", "uploads", "cancel", "--upload-id", upload)
		other := idOf(b, b.ok(createArgs...))
		require.Contains(b, b.ok("uploads", "cancel", "--upload-id", other), `"status":"cancelled"`)
		b.refused(1, "No such Upload object: upload_x", "uploads", "cancel", "--upload-id", "upload_x")
		b.refused(1, "'fun' is not one of", "uploads", "create", "--bytes", "1", "--filename", "f", "--mime-type", "a/b", "--purpose", "fun")
	})
}

// What the API answers is printed as it came, whatever this program knows of it.
func TestRawCallsPrintWhatCame(t *testing.T) {
	b := self(t)
	for answer, want := range map[string]string{
		`{"z":1.50,"id":"upload_1","object":"other","a":{"b" : null}}`: `{"z":1.50,"id":"upload_1","object":"other","a":{"b" : null}}`,
		"{\n  \"id\": 9007199254740993,\n  \"x\": \"a\\nb\"\n}\n":      `{"id":9007199254740993,"x":"a\nb"}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			require.NoError(t, err)
			w.Header().Set("Content-Type", "application/json")
			_, err = io.WriteString(w, answer)
			require.NoError(t, err)
		}))
		t.Cleanup(server.Close)
		for _, args := range [][]string{
			createArgs,
			{"uploads:parts", "create", "--upload-id", "u", "--data-string", "x"},
			{"uploads", "complete", "--upload-id", "u", "--part-id", "p"},
			{"uploads", "cancel", "--upload-id", "u"},
		} {
			b.env = append(b.env, "OPENAI_API_KEY="+testKey)
			require.Equal(t, want+"\n", b.ok(append(args, "--base-url", server.URL)...))
		}
	}
}

func TestPrintAnswer(t *testing.T) {
	const answer = "{\n \"b\": 1,\n \"a\": []\n}\n"
	for format, want := range map[string]string{
		"": "{\"b\":1,\"a\":[]}\n", "json": "{\"b\":1,\"a\":[]}\n", "jsonl": "{\"b\":1,\"a\":[]}\n",
		"raw": answer, "pretty": "{\n  \"b\": 1,\n  \"a\": []\n}\n",
	} {
		var out bytes.Buffer
		require.NoError(t, printAnswer(&out, answer, format))
		require.Equal(t, want, out.String(), format)
	}
}

func TestRawCallsMakeOneRequest(t *testing.T) {
	b := self(t)
	requests := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Header.Get("Authorization")
		http.Error(w, `{"error":{"message":"Out of order.","type":"server_error"}}`, http.StatusInternalServerError)
	}))
	t.Cleanup(server.Close)
	key := b.write("key", "sk-of-the-file-0123456789\n")
	b.refused(1, "Out of order.", append(createArgs, "--base-url", server.URL, "--api-key-file", key)...)
	require.Equal(t, "Bearer sk-of-the-file-0123456789", <-requests)

	r := b.uploadfs(append(createArgs, "--base-url", server.URL, "--api-key", testKey)...)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "can be seen in the process list")
	require.Contains(t, r.stderr, "Out of order.")
	require.Equal(t, "Bearer "+testKey, <-requests)
	require.Empty(t, requests)
}

func TestRawCallsRefuseBeforeAnythingIsSent(t *testing.T) {
	b := self(t)
	b.refused(1, "no API key: set OPENAI_API_KEY, or give --api-key-file", createArgs...)
	a := newAPI(t)
	a.use(b)
	part := []string{"uploads:parts", "create", "--upload-id", "upload_x"}
	large := b.path("large")
	require.NoError(t, os.WriteFile(large, nil, 0o600))
	require.NoError(t, os.Truncate(large, api.MaxPart+1))

	b.refused(1, "--data takes the path of a file; --data-string TEXT sends the text itself", append(part, "--data", "hello")...)
	b.refused(1, "larger than 64 MiB", append(part, "--data", large)...)
	b.refused(1, "is a directory", append(part, "--data", b.dir)...)
	b.refused(1, "is empty", append(part, "--data", "/dev/null")...)
	b.refused(1, "is empty", append(part, "--data-string", "")...)
	b.refused(2, "either --data or --data-string", part...)
	b.refused(2, "either --data or --data-string", append(part, "--data", large, "--data-string", "x")...)
	b.refused(2, "give --upload-id", "uploads:parts", "create", "--data", large)
	b.refused(2, "give --filename, --purpose", "uploads", "create", "--bytes", "1", "--mime-type", "a/b")
	b.refused(2, "give --part-id", "uploads", "complete", "--upload-id", "u")
	b.refused(2, "give --upload-id", "uploads", "cancel")
	b.refused(2, "knows only created_at", append(createArgs, "--expires-after.anchor", "now")...)
	b.refused(2, "give --expires-after.seconds", append(createArgs, "--expires-after.anchor", "created_at")...)
	b.refused(2, "3600 to 2592000", append(createArgs, "--expires-after.seconds", "60")...)
	b.refused(2, "json or jsonl or raw or pretty", append(createArgs, "--format", "yaml")...)
	b.refused(2, "use uploads create", "uploads", "list")
	b.refused(2, "use uploads:parts create", "uploads:parts", "list")
	b.refused(1, "plain http", append(createArgs, "--base-url", "http://api.example.com/v1")...)

	r := b.sh(fmt.Sprintf("cat %s | %s uploads:parts create --upload-id u --data -", large, binary))
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "standard input is larger than 64 MiB")
	require.Zero(t, a.Stats().BodyBytes)
}

// The largest part goes through, from a file, from a pipe with a name and from
// standard input.
func TestRawPartOf64MiB(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	whole := b.path("whole")
	f, err := os.Create(whole)
	require.NoError(t, err)
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range api.MaxPart / len(block) {
		_, err := f.Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	upload := idOf(b, b.ok("uploads", "create", "--bytes", fmt.Sprint(3*api.MaxPart), "--filename", "f", "--mime-type", "text/plain", "--purpose", "batch"))
	first := b.ok("uploads:parts", "create", "--upload-id", upload, "--data", whole)
	second := b.shOK(fmt.Sprintf("cat %s | %s uploads:parts create --upload-id %s --data -", whole, binary, upload))
	cmd := b.command("bash", "-c", fmt.Sprintf("%s uploads:parts create --upload-id %s --data <(cat %s)", binary, upload, whole))
	third := b.do(cmd)
	require.Zero(t, third.code, third.stderr)
	args := []string{"uploads", "complete", "--upload-id", upload}
	for _, p := range []string{first, second, third.stdout} {
		args = append(args, "--part-id", idOf(b, p))
	}
	require.Contains(t, b.ok(args...), `"status":"completed"`)
	sum := md5.New()
	for range 3 * api.MaxPart / len(block) {
		sum.Write(block)
	}
	files := a.Files()
	require.Len(t, files, 1)
	r, err := a.OpenContent(files[0].ID)
	require.NoError(t, err)
	defer r.Close()
	got := md5.New()
	_, err = io.Copy(got, r)
	require.NoError(t, err)
	require.Equal(t, sum.Sum(nil), got.Sum(nil))
}

// TestUploadsPrintsNoPassword gives base URLs with a password, some of which cannot be
// parsed.
func TestUploadsPrintsNoPassword(t *testing.T) {
	for _, url := range []string{
		"https://me:secret@host/v1", "https://me:secret@ho st/v1", "https://me:se/secret@host/v1", "me:secret@host/v1", "https://me:secret%zz@host/v1",
	} {
		b := self(t)
		b.env = append(b.env, "OPENAI_API_KEY="+testKey, "OPENAI_BASE_URL="+url)
		r := b.uploadfs("uploads", "cancel", "--upload-id", "upload_1")
		require.NotZero(t, r.code, url)
		require.Contains(t, r.stderr, "must not carry a user name or password", url)
		require.NotContains(t, r.stdout+r.stderr, "secret", url)
	}
}
