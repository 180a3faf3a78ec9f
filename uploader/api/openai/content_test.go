package openai_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
	"uploadfs/uploader/api/retry"
)

func TestContentIsReadWhereTheAPIGivesIt(t *testing.T) {
	l := serve(t, false)
	b := newBackend(t, l.url, openai.Config{})
	reader := api.FileReaderOf(retry.New(b, retry.Options{}))
	require.Same(t, b, reader, "a decorator is seen through")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // longer than any other answer may be
	file := func(purpose string) string {
		up, err := b.Create(t.Context(), api.Spec{Filename: "f", Purpose: purpose, MimeType: "text/plain", Bytes: int64(len(content))})
		require.NoError(t, err)
		part, err := b.AddPart(t.Context(), up.ID, io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content))))
		require.NoError(t, err)
		f, err := b.Complete(t.Context(), up.ID, []string{part}, "")
		require.NoError(t, err)
		return f.ID
	}
	var got bytes.Buffer
	require.NoError(t, b.ReadFile(t.Context(), file("evals"), &got))
	require.True(t, bytes.Equal(content, got.Bytes()))

	got.Reset()
	err := b.ReadFile(t.Context(), file("user_data"), &got)
	require.Equal(t, api.Refused, api.KindOf(err))
	require.ErrorContains(t, err, "Not allowed to download")
	require.Zero(t, got.Len())
}

func TestContentThatIsCutShort(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half"))
	}))
	defer server.Close()
	var got bytes.Buffer
	err := newBackend(t, server.URL, openai.Config{}).ReadFile(t.Context(), "file-1", &got)
	require.Equal(t, api.Transient, api.KindOf(err))
	require.Equal(t, "half", got.String())
}
