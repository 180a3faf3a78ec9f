package local_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

const formType = "multipart/form-data; boundary=b"

// lines makes a body of CRLF-terminated lines.
func lines(s ...string) string { return strings.Join(s, "\r\n") + "\r\n" }

func TestPartForm(t *testing.T) {
	const data = `Content-Disposition: form-data; name="data"; filename="f"`
	good := lines("--b", data, "Content-Type: application/octet-stream", "", "abc", "--b--")
	const notUnderstood = "The browser (or proxy) sent a request that this server could not understand."
	for name, test := range map[string]struct {
		opt               local.Options
		contentType, body string
		status            int
		message           string
	}{
		"good":               {body: good, status: 200},
		"no line end":        {body: strings.TrimSuffix(good, "\r\n"), status: 200},
		"preamble, epilogue": {body: "hello\r\n" + good + "bye", status: 200},
		"quoted boundary":    {contentType: `multipart/form-data; boundary="b"`, body: good, status: 200},
		"no content type":    {body: lines("--b", data, "", "abc", "--b--"), status: 200},
		"no content type, Azure": {opt: local.Options{RequirePartContentType: true},
			body: lines("--b", data, "", "abc", "--b--"), status: 400, message: "no Content-Type"},
		"no filename": {body: lines("--b", `Content-Disposition: form-data; name="data"`, "", "abc", "--b--"),
			status: 400, message: notUnderstood},
		"no filename, allowed": {opt: local.Options{AllowMissingFilename: true},
			body: lines("--b", `Content-Disposition: form-data; name="data"`, "", "abc", "--b--"), status: 200},
		"no field":       {body: "--b--\r\n", status: 400, message: "Missing required parameter: 'data'"},
		"other field":    {body: strings.Replace(good, `"data"`, `"date"`, 1), status: 400, message: "Unknown parameter: 'date'"},
		"two fields":     {body: strings.TrimSuffix(good, "--b--\r\n") + good, status: 400, message: "Unknown parameter: 'data'"},
		"no name":        {body: lines("--b", "", "abc", "--b--"), status: 400, message: notUnderstood},
		"not form-data":  {body: lines("--b", `Content-Disposition: attachment; name="data"`, "", "abc", "--b--"), status: 400, message: notUnderstood},
		"no end":         {body: strings.TrimSuffix(good, "--\r\n"), status: 400, message: notUnderstood},
		"empty body":     {body: "", status: 400, message: notUnderstood},
		"empty part":     {body: lines("--b", data, "", "", "--b--"), status: 400, message: "File is empty."},
		"long head":      {body: lines("--b", "X: "+strings.Repeat("x", 9<<10), data, "", "abc", "--b--"), status: 400, message: notUnderstood},
		"long epilogue":  {body: good + strings.Repeat("x", 600_000), status: 400, message: notUnderstood},
		"not a form":     {contentType: "application/octet-stream", body: "abc", status: 400, message: "Unsupported content type"},
		"no boundary":    {contentType: "multipart/form-data", body: good, status: 400, message: "Unsupported content type"},
		"largest":        {opt: local.Options{MaxPartBytes: 3}, body: good, status: 200},
		"too large":      {opt: local.Options{MaxPartBytes: 2}, body: good, status: 400, message: "File is too large."},
		"much too large": {opt: local.Options{MaxPartBytes: 2}, body: good + strings.Repeat("x", 2<<20), status: 413, message: "body is too large"},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, test.opt)
			id := a.create(3)
			contentType := test.contentType
			if contentType == "" {
				contentType = formType
			}
			got := a.send("POST", "/v1/uploads/"+id+"/parts", contentType, strings.NewReader(test.body))
			if test.status != http.StatusOK {
				require.Contains(t, got.refused(t, test.status), test.message)
				require.Empty(t, a.srv.Uploads()[0].Received)
				require.Empty(t, temporary(t, a))
				return
			}
			part := got.object(t, "id", "object", "created_at", "upload_id")["id"].(string)
			a.complete(id, sum([]byte("abc")), part).object(t, uploadMembers...)
		})
	}
}

// temporary lists what is being received.
func temporary(t *testing.T, a *api) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(a.dir, "tmp", "*"))
	require.NoError(t, err)
	return names
}

// TestLargestPartIsStreamed sends a part of exactly 64 MiB, and one byte more, and looks at what both sides allocate.
func TestLargestPartIsStreamed(t *testing.T) {
	a := start(t, local.Options{})
	path := filepath.Join(t.TempDir(), "source")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 64<<20+1)) // sparse
	id := a.create(64 << 20)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NoError(t, a.streamFile(id, path, 64<<20))
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))

	require.ErrorContains(t, a.streamFile(id, path, 64<<20+1), "400: ")
	require.Len(t, a.srv.Uploads()[0].Received, 1)
}

func TestBrokenOffPartLeavesNothing(t *testing.T) {
	a := start(t, local.Options{})
	id := a.create(1 << 20)
	_, body := form("data", "f", noise(1, 1<<20))
	conn := a.dial()
	conn.write("POST /v1/uploads/" + id + "/parts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey +
		"\r\nContent-Type: " + formType + "\r\nContent-Length: 1048700\r\n\r\n")
	conn.write(string(bytes.Clone(body[:500_000])))
	conn.close()
	require.NoError(t, a.srv.Close()) // waits for the request
	require.Empty(t, temporary(t, a))
}
