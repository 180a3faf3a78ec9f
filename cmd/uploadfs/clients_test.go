//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/local"
)

// The official Go SDK against `uploadfs serve`, used as its documentation says.

// sdk is a client of the server, with retrying as often as said.
func sdk(s *served, retries int, options ...option.RequestOption) openai.Client {
	return openai.NewClient(append([]option.RequestOption{
		option.WithBaseURL(s.url), option.WithAPIKey(testKey), option.WithMaxRetries(retries),
	}, options...)...)
}

func (b *box) serveKeyed() *served {
	b.Helper()
	return b.serve(b.path("files"), "--api-key-file", b.write("key", testKey))
}

// newUpload are the parameters of an Upload of n bytes whose content can be read
// back.
func newUpload(n int64) openai.UploadNewParams {
	return openai.UploadNewParams{Bytes: n, Filename: "train.jsonl", MimeType: "text/jsonl", Purpose: openai.FilePurposeBatch}
}

func partOfBytes(content []byte) openai.UploadPartNewParams {
	return openai.UploadPartNewParams{Data: bytes.NewReader(content)}
}

func TestSDKCalls(t *testing.T) {
	b, ctx := self(t), context.Background()
	s := b.serveKeyed()
	client := sdk(s, 0)
	content := []byte("hello, world")

	params := newUpload(int64(len(content)))
	params.ExpiresAfter.Seconds = 7200
	upload, err := client.Uploads.New(ctx, params)
	require.NoError(t, err)
	require.Equal(t, openai.UploadStatusPending, upload.Status)
	require.EqualValues(t, len(content), upload.Bytes)
	require.Equal(t, "train.jsonl", upload.Filename)
	require.Equal(t, "batch", string(upload.Purpose))
	require.Equal(t, upload.CreatedAt+3600, upload.ExpiresAt)
	require.False(t, upload.JSON.File.Valid(), "null until it is completed")

	var parts []string
	for _, piece := range [][]byte{content[:5], content[5:]} {
		part, err := client.Uploads.Parts.New(ctx, upload.ID, partOfBytes(piece))
		require.NoError(t, err)
		require.Equal(t, upload.ID, part.UploadID)
		require.NotZero(t, part.CreatedAt)
		parts = append(parts, part.ID)
	}
	done, err := client.Uploads.Complete(ctx, upload.ID, openai.UploadCompleteParams{PartIDs: parts})
	require.NoError(t, err)
	require.Equal(t, openai.UploadStatusCompleted, done.Status)
	require.EqualValues(t, len(content), done.File.Bytes)
	require.Equal(t, done.File.CreatedAt+7200, done.File.ExpiresAt)

	file, err := client.Files.Get(ctx, done.File.ID)
	require.NoError(t, err)
	require.Equal(t, done.File.Filename, file.Filename)
	require.Equal(t, content, download(t, client, file.ID))

	posted, err := client.Files.New(ctx, openai.FileNewParams{
		File: openai.File(bytes.NewReader(content), "posted.jsonl", "text/jsonl"), Purpose: openai.FilePurposeFineTune,
	})
	require.NoError(t, err)
	require.Equal(t, "posted.jsonl", posted.Filename)
	require.Equal(t, content, download(t, client, posted.ID))

	deleted, err := client.Files.Delete(ctx, posted.ID)
	require.NoError(t, err)
	require.True(t, deleted.Deleted)
	require.Equal(t, posted.ID, deleted.ID)

	other, err := client.Uploads.New(ctx, newUpload(1))
	require.NoError(t, err)
	cancelled, err := client.Uploads.Cancel(ctx, other.ID)
	require.NoError(t, err)
	require.Equal(t, openai.UploadStatusCancelled, cancelled.Status)
}

func download(t testing.TB, client openai.Client, fileID string) []byte {
	t.Helper()
	res, err := client.Files.Content(context.Background(), fileID)
	require.NoError(t, err)
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return content
}

func TestSDKPages(t *testing.T) {
	b, ctx := self(t), context.Background()
	client := sdk(b.serveKeyed(), 0)
	var want []string
	for i := range 7 {
		purpose := openai.FilePurposeBatch
		if i%3 == 2 {
			purpose = openai.FilePurposeEvals
		}
		f, err := client.Files.New(ctx, openai.FileNewParams{
			File: openai.File(strings.NewReader("x"), "f"+strconv.Itoa(i), "text/plain"), Purpose: purpose,
		})
		require.NoError(t, err)
		if purpose == openai.FilePurposeBatch {
			want = append(want, f.ID)
		}
	}
	var got []string
	pages := client.Files.ListAutoPaging(ctx, openai.FileListParams{
		Purpose: openai.String("batch"), Limit: openai.Int(2), Order: openai.FileListParamsOrderAsc,
	})
	for pages.Next() {
		got = append(got, pages.Current().ID)
	}
	require.NoError(t, pages.Err())
	require.Equal(t, want, got)

	page, err := client.Files.List(ctx, openai.FileListParams{After: openai.String(got[1]), Order: openai.FileListParamsOrderAsc})
	require.NoError(t, err)
	require.Len(t, page.Data, 5)
	require.False(t, page.HasMore)
}

// Every refusal is a typed error of the SDK, with what the service would say.
func TestSDKErrors(t *testing.T) {
	b, ctx := self(t), context.Background()
	s := b.serveKeyed()
	client := sdk(s, 0)
	create := func(change func(*openai.UploadNewParams)) error {
		p := newUpload(5)
		change(&p)
		_, err := client.Uploads.New(ctx, p)
		return err
	}
	pending := func() string {
		u, err := client.Uploads.New(ctx, newUpload(5))
		require.NoError(t, err)
		return u.ID
	}
	part := func(upload, text string) string {
		p, err := client.Uploads.Parts.New(ctx, upload, partOfBytes([]byte(text)))
		require.NoError(t, err)
		return p.ID
	}
	complete := func(upload, md5 string, parts ...string) error {
		p := openai.UploadCompleteParams{PartIDs: parts}
		if md5 != "" {
			p.Md5 = openai.String(md5)
		}
		_, err := client.Uploads.Complete(ctx, upload, p)
		return err
	}
	completed := pending()
	require.NoError(t, complete(completed, "", part(completed, "hello")))
	cancelled := pending()
	_, err := client.Uploads.Cancel(ctx, cancelled)
	require.NoError(t, err)
	secret, err := client.Files.New(ctx, openai.FileNewParams{
		File: openai.File(strings.NewReader("x"), "f", "text/plain"), Purpose: openai.FilePurposeUserData,
	})
	require.NoError(t, err)

	for name, c := range map[string]struct {
		err         error
		status      int
		code, param string
		message     string
	}{
		"an unknown purpose": {create(func(p *openai.UploadNewParams) { p.Purpose = "fun" }), 400, "", "purpose", "'fun' is not one of ["},
		"no bytes":           {create(func(p *openai.UploadNewParams) { p.Bytes = 0 }), 400, "", "bytes", "greater than 0"},
		"too many bytes":     {create(func(p *openai.UploadNewParams) { p.Bytes = api.MaxUpload + 1 }), 400, "", "bytes", "File is too large."},
		"no filename":        {create(func(p *openai.UploadNewParams) { p.Filename = "" }), 400, "", "filename", "filename"},
		"a short life":       {create(func(p *openai.UploadNewParams) { p.ExpiresAfter.Seconds = 60 }), 400, "", "expires_after.seconds", "3600"},
		"a part of nothing": {func() error {
			_, err := client.Uploads.Parts.New(ctx, "upload_x", partOfBytes([]byte("x")))
			return err
		}(), 404, "", "id", "No such Upload object: upload_x"},
		"an empty part": {func() error {
			_, err := client.Uploads.Parts.New(ctx, pending(), partOfBytes(nil))
			return err
		}(), 400, "", "data", "File is empty."},
		"too large a part": {func() error {
			_, err := client.Uploads.Parts.New(ctx, pending(), partOfBytes(make([]byte, api.MaxPart+1)))
			return err
		}(), 400, "", "data", "File is too large."},
		"a part too late": {func() error {
			_, err := client.Uploads.Parts.New(ctx, completed, partOfBytes([]byte("x")))
			return err
		}(), 400, "", "", "already completed"},
		"an unknown part":     {complete(pending(), "", "part_x"), 400, "", "part_ids", "part_x"},
		"too few bytes":       {func() error { u := pending(); return complete(u, "", part(u, "hell")) }(), 400, "", "part_ids", "bytes"},
		"another md5":         {func() error { u := pending(); return complete(u, strings.Repeat("0", 32), part(u, "hello")) }(), 400, "", "md5", "The MD5 of Upload"},
		"completed twice":     {complete(completed, "", "part_x"), 400, "", "", "already completed"},
		"completed too late":  {complete(cancelled, "", "part_x"), 400, "", "", "already cancelled"},
		"nothing to complete": {complete("upload_x", "", "part_x"), 404, "", "id", "No such Upload object: upload_x"},
		"cancelled twice": {func() error {
			_, err := client.Uploads.Cancel(ctx, cancelled)
			return err
		}(), 400, "", "", "already cancelled"},
		"no such File": {func() error {
			_, err := client.Files.Get(ctx, "file-x")
			return err
		}(), 404, "", "id", "No such File object: file-x"},
		"no such content": {func() error {
			_, err := client.Files.Content(ctx, "file-x")
			return err
		}(), 404, "", "id", "No such File object: file-x"},
		"content that is not given back": {func() error {
			_, err := client.Files.Content(ctx, secret.ID)
			return err
		}(), 400, "", "", "Not allowed to download files of purpose: user_data"},
		"nothing to delete": {func() error {
			_, err := client.Files.Delete(ctx, "file-x")
			return err
		}(), 404, "", "id", "No such File object: file-x"},
		"a page after an unknown File": {func() error {
			_, err := client.Files.List(ctx, openai.FileListParams{Limit: openai.Int(10001)})
			return err
		}(), 400, "", "limit", "limit"},
		"another key": {func() error {
			other := sdk(s, 0, option.WithAPIKey("sk-another-key-0123456789-0123456789"))
			_, err := other.Files.Get(ctx, "file-x")
			return err
		}(), 401, "invalid_api_key", "", "Incorrect API key provided: sk-***6789."},
		"an unknown path":   {client.Get(ctx, "models", nil, nil), 404, "", "", "Invalid URL (GET /v1/models)"},
		"an unknown method": {client.Delete(ctx, "files", nil, nil), 405, "", "", "not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			var e *openai.Error
			require.ErrorAs(t, c.err, &e)
			require.Equal(t, c.status, e.StatusCode)
			require.Equal(t, "invalid_request_error", e.Type)
			require.Equal(t, c.code, e.Code)
			require.Equal(t, c.param, e.Param)
			require.Contains(t, e.Message, c.message)
			require.NotEmpty(t, e.Response.Header.Get("X-Request-Id"))
		})
	}
}

// The SDK's own retries get through every fault but one: a Complete whose answer
// is lost is refused at the second try, because the File exists. put gets through
// them all, and none leads to two Files.
func TestClientsAgainstFaults(t *testing.T) {
	for _, mode := range failModes {
		t.Run(mode, func(t *testing.T) {
			b, ctx := self(t), context.Background()
			s := b.serve(b.path("files"), "--fail-every", "3", "--fail-mode", mode, "--latency", "1ms", "--rate-per-connection", "64MiB")
			s.use(b)
			client := sdk(s, 5)
			content := b.big("f", 24<<20)
			b.ok(b.put("--quiet", "--purpose", "evals", "--part-size", "8MiB", "--parallel", "2", "f")...)

			upload, err := client.Uploads.New(ctx, newUpload(12))
			require.NoError(t, err)
			var parts []string
			for range 3 {
				part, err := client.Uploads.Parts.New(ctx, upload.ID, partOfBytes([]byte("abcd")))
				require.NoError(t, err)
				parts = append(parts, part.ID)
			}
			_, err = client.Uploads.Complete(ctx, upload.ID, openai.UploadCompleteParams{PartIDs: parts})
			var e *openai.Error
			if mode == string(local.FaultLost) && errors.As(err, &e) {
				require.Contains(t, e.Message, "already completed")
			} else {
				require.NoError(t, err)
			}

			list, err := client.Files.List(ctx, openai.FileListParams{Order: openai.FileListParamsOrderAsc})
			require.NoError(t, err)
			require.Len(t, list.Data, 2)
			require.True(t, bytes.Equal(content, download(t, client, list.Data[0].ID)))
			require.Equal(t, "abcdabcdabcd", string(download(t, client, list.Data[1].ID)))
		})
	}
}
