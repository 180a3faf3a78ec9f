package local_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

func TestFilePostedWhole(t *testing.T) {
	now := newClock()
	a := start(t, local.Options{Now: now.now})
	content := noise(3, 400_000)
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	file, err := w.CreateFormFile("file", "../../x.jsonl") // the content may come before the purpose
	require.NoError(t, err)
	_, err = file.Write(content)
	require.NoError(t, err)
	for name, value := range map[string]string{"purpose": "vision", "expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"} {
		require.NoError(t, w.WriteField(name, value))
	}
	require.NoError(t, w.Close())

	o := a.send("POST", "/v1/files", w.FormDataContentType(), &b).object(t, append(fileMembers, "expires_at")...)
	require.Equal(t, "../../x.jsonl", o["filename"])
	require.Equal(t, "vision", o["purpose"])
	require.Equal(t, float64(len(content)), o["bytes"])
	require.Equal(t, float64(now.now().Add(2*time.Hour).Unix()), o["expires_at"])
	id := o["id"].(string)
	require.Equal(t, o, a.get("/v1/files/"+id).object(t, append(fileMembers, "expires_at")...))
	require.True(t, bytes.Equal(content, a.get("/v1/files/"+id+"/content").body))
	require.Empty(t, a.srv.Files()[0].UploadID)
}

func TestFileFormRefusals(t *testing.T) {
	field := func(name, value string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	const file = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nabc\r\n"
	const end = "--b--\r\n"
	purpose := field("purpose", "batch")
	a := start(t, local.Options{MaxFileBytes: 3})
	for name, test := range map[string]struct {
		body, message string
		status        int
	}{
		"no purpose":        {file + end, "Missing required parameter: 'purpose'", 400},
		"other purpose":     {field("purpose", "fun") + file + end, "'fun' is not one of", 400},
		"no file":           {purpose + end, "Missing required parameter: 'file'", 400},
		"no filename":       {purpose + field("file", "abc") + end, "could not understand", 400},
		"two files":         {purpose + file + file + end, "'file' was sent more than once", 400},
		"two purposes":      {purpose + purpose + file + end, "'purpose' was sent more than once", 400},
		"unknown field":     {purpose + file + field("porpoise", "x") + end, "Unknown parameter: 'porpoise'", 400},
		"long purpose":      {field("purpose", strings.Repeat("x", 5000)) + file + end, "could not understand", 400},
		"anchor only":       {purpose + file + field("expires_after[anchor]", "created_at") + end, "'expires_after.seconds'", 400},
		"seconds only":      {purpose + file + field("expires_after[seconds]", "3600") + end, "must be 'created_at'", 400},
		"seconds too few":   {purpose + file + field("expires_after[anchor]", "created_at") + field("expires_after[seconds]", "1") + end, "from 3600", 400},
		"empty":             {purpose + strings.Replace(file, "abc", "", 1) + end, "File is empty.", 400},
		"too large":         {purpose + strings.Replace(file, "abc", "abcd", 1) + end, "File is too large.", 400},
		"far too large":     {purpose + strings.Replace(file, "abc", strings.Repeat("x", 2<<20), 1) + end, "body is too large", 413},
		"truncated":         {purpose + file, "could not understand", 400},
		"not a form at all": {"abc", "could not understand", 400},
	} {
		t.Run(name, func(t *testing.T) {
			got := a.send("POST", "/v1/files", formType, strings.NewReader(test.body))
			require.Contains(t, got.refused(t, test.status), test.message)
		})
	}
	require.Empty(t, a.srv.Files())
	require.Empty(t, temporary(t, a))
	a.send("POST", "/v1/files", formType, strings.NewReader(purpose+file+end)).object(t, fileMembers...)
}

func TestContentOfSomePurposesIsRefused(t *testing.T) {
	a := start(t, local.Options{})
	for purpose, refused := range map[string]bool{
		"assistants": true, "user_data": true, "batch": false, "fine-tune": false, "vision": false, "evals": false,
	} {
		id := a.upload(purpose, []byte("abc"))
		got := a.get("/v1/files/" + id + "/content")
		if refused {
			require.Equal(t, "Not allowed to download files of purpose: "+purpose, got.refused(t, 400))
		} else {
			require.Equal(t, "abc", string(got.body))
		}
		require.Equal(t, "abc", string(a.stored(id)))
	}
}

func TestContentRanges(t *testing.T) {
	a := start(t, local.Options{})
	upload := a.create(9)
	var parts []string
	for _, s := range []string{"abc", "def", "ghi"} {
		parts = append(parts, a.part(upload, []byte(s)))
	}
	o := a.complete(upload, "", parts...).object(t, uploadMembers...)
	path := "/v1/files/" + o["file"].(map[string]any)["id"].(string) + "/content"
	for header, want := range map[string]struct {
		status             int
		body, contentRange string
	}{
		"bytes=0-":      {206, "abcdefghi", "bytes 0-8/9"},
		"bytes=0-0":     {206, "a", "bytes 0-0/9"},
		"bytes=2-6":     {206, "cdefg", "bytes 2-6/9"},
		"bytes=3-5":     {206, "def", "bytes 3-5/9"},
		"bytes=8-100":   {206, "i", "bytes 8-8/9"},
		"bytes=-4":      {206, "fghi", "bytes 5-8/9"},
		"bytes=-100":    {206, "abcdefghi", "bytes 0-8/9"},
		"bytes=0-1,4-5": {200, "abcdefghi", ""},
		"bytes=5-2":     {200, "abcdefghi", ""},
		"bytes=x-2":     {200, "abcdefghi", ""},
		"bytes=-":       {200, "abcdefghi", ""},
		"bytes=":        {200, "abcdefghi", ""},
		"lines=1-2":     {200, "abcdefghi", ""},
	} {
		req, err := http.NewRequest("GET", "http://"+a.addr+path, nil)
		require.NoError(t, err)
		req.Header.Set("Range", header)
		got, err := a.do(req)
		require.NoError(t, err)
		require.Equal(t, want.status, got.status, header)
		require.Equal(t, want.body, string(got.body), header)
		require.Equal(t, want.contentRange, got.header.Get("Content-Range"), header)
	}
	for _, header := range []string{"bytes=9-", "bytes=-0"} {
		req, err := http.NewRequest("GET", "http://"+a.addr+path, nil)
		require.NoError(t, err)
		req.Header.Set("Range", header)
		got, err := a.do(req)
		require.NoError(t, err)
		require.NotEmpty(t, got.refused(t, http.StatusRequestedRangeNotSatisfiable), header)
	}
}

func TestListFiles(t *testing.T) {
	a := start(t, local.Options{})
	list := func(query string) (ids []string, hasMore bool) {
		t.Helper()
		o := a.get("/v1/files"+query).object(t, "object", "data", "first_id", "last_id", "has_more")
		require.Equal(t, "list", o["object"])
		for _, f := range o["data"].([]any) {
			ids = append(ids, f.(map[string]any)["id"].(string))
		}
		if len(ids) == 0 {
			require.Nil(t, o["first_id"])
			require.Nil(t, o["last_id"])
		} else {
			require.Equal(t, ids[0], o["first_id"])
			require.Equal(t, ids[len(ids)-1], o["last_id"])
		}
		return ids, o["has_more"].(bool)
	}
	ids, more := list("")
	require.Empty(t, ids)
	require.False(t, more)

	b1, e1, b2, e2, b3 := a.upload("batch", []byte("1")), a.upload("evals", []byte("2")), a.upload("batch", []byte("3")),
		a.upload("evals", []byte("4")), a.upload("batch", []byte("5"))
	for query, want := range map[string]struct {
		ids  []string
		more bool
	}{
		"":                                     {[]string{b3, e2, b2, e1, b1}, false},
		"?order=desc&limit=5":                  {[]string{b3, e2, b2, e1, b1}, false},
		"?order=asc":                           {[]string{b1, e1, b2, e2, b3}, false},
		"?order=asc&limit=2":                   {[]string{b1, e1}, true},
		"?order=asc&limit=2&after=" + e1:       {[]string{b2, e2}, true},
		"?order=asc&limit=2&after=" + e2:       {[]string{b3}, false},
		"?limit=1&after=" + b3:                 {[]string{e2}, true},
		"?after=" + b1:                         {nil, false},
		"?purpose=batch":                       {[]string{b3, b2, b1}, false},
		"?purpose=batch&limit=2":               {[]string{b3, b2}, true},
		"?purpose=evals&limit=2":               {[]string{e2, e1}, false},
		"?purpose=batch&order=asc&after=" + e1: {[]string{b2, b3}, false},
		"?purpose=vision":                      {nil, false},
	} {
		ids, more := list(query)
		require.Equal(t, want.ids, ids, query)
		require.Equal(t, want.more, more, query)
	}
	for query, message := range map[string]string{
		"?limit=0": "from 1 to 10000", "?limit=10001": "from 1 to 10000", "?limit=x": "expected an integer",
		"?order=up": "'up' is not one of", "?after=file-x": "No such File object: file-x", "?sort=id": "Unknown parameter: 'sort'",
	} {
		require.Contains(t, a.get("/v1/files"+query).refused(t, 400), message, query)
	}
}

func TestDeleteFile(t *testing.T) {
	a := start(t, local.Options{})
	kept, id := a.upload("batch", []byte("abc")), a.upload("batch", []byte("def"))
	reader, err := a.srv.OpenContent(id)
	require.NoError(t, err)

	o := a.send("DELETE", "/v1/files/"+id, "", nil).object(t, "id", "object", "deleted")
	require.Equal(t, map[string]any{"id": id, "object": "file", "deleted": true}, o)
	for _, got := range []answer{
		a.get("/v1/files/" + id), a.get("/v1/files/" + id + "/content"), a.send("DELETE", "/v1/files/"+id, "", nil),
	} {
		require.Equal(t, "No such File object: "+id, got.refused(t, 404))
	}
	require.Len(t, a.srv.Files(), 1)
	_, err = a.srv.OpenContent(id)
	require.ErrorContains(t, err, "No such File object")

	// A download that was under way gets its bytes, and they go with it.
	require.Len(t, dataOf(t, a), 2)
	b, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.Equal(t, "def", string(b))
	require.NoError(t, reader.Close())
	require.Len(t, dataOf(t, a), 1)
	require.Equal(t, "abc", string(a.stored(kept)))
}

func TestFileExpires(t *testing.T) {
	now := newClock()
	a := start(t, local.Options{Now: now.now})
	created := a.postJSON("/v1/uploads",
		`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":{"anchor":"created_at","seconds":3600}}`)
	upload := created.object(t, uploadMembers...)["id"].(string)
	now.advance(time.Minute)
	o := a.complete(upload, "", a.part(upload, []byte("x"))).object(t, uploadMembers...)
	id := o["file"].(map[string]any)["id"].(string)

	now.advance(time.Hour - time.Nanosecond) // from the File's creation, not the Upload's
	require.Equal(t, http.StatusOK, a.get("/v1/files/"+id).status)
	now.advance(time.Nanosecond)
	require.NotEmpty(t, a.get("/v1/files/"+id).refused(t, 404))
	var list struct{ Data []json.RawMessage }
	require.NoError(t, json.Unmarshal(a.get("/v1/files").body, &list))
	require.Empty(t, list.Data)
	a.srv.Collect()
	require.Empty(t, dataOf(t, a))
}

func TestClientStringsAreNoPaths(t *testing.T) {
	a := start(t, local.Options{})
	a.upload("batch", []byte("abc"))
	for _, id := range []string{"..", "%2e%2e", "..%2flock", "%2fetc%2fpasswd", "file-%00", strings.Repeat("x", 5000)} {
		for _, path := range []string{"/v1/files/" + id, "/v1/files/" + id + "/content"} {
			a.get(path).refused(t, 404)
		}
		a.send("DELETE", "/v1/files/"+id, "", nil).refused(t, 404)
		a.postJSON(fmt.Sprintf("/v1/uploads/%s/complete", id), `{"part_ids":["x"]}`).refused(t, 404)
	}
	require.Len(t, a.srv.Files(), 1)
}
