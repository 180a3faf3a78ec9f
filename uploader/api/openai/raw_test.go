package openai_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
)

// Raw returns answers unchanged that the Backend would refuse.
func TestRawAnswersAsTheyCame(t *testing.T) {
	const answer = "{\"object\": \"what\",\n \"n\": 1.0e3, \"unknown\": [null]}"
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		require.NoError(t, err)
		asked = append(asked, r.Method+" "+r.URL.Path)
		_, err = io.WriteString(w, answer)
		require.NoError(t, err)
	}))
	t.Cleanup(server.Close)
	ctx, raw := context.Background(), newBackend(t, server.URL, openai.Config{}).Raw()
	for _, call := range []func() (string, error){
		func() (string, error) { return raw.Create(ctx, spec) },
		func() (string, error) { return raw.AddPart(ctx, "u", section([]byte("abc"))) },
		func() (string, error) { return raw.Complete(ctx, "u", []string{"p"}, "") },
		func() (string, error) { return raw.Cancel(ctx, "u") },
	} {
		got, err := call()
		require.NoError(t, err)
		require.Equal(t, answer, got)
	}
	require.Equal(t, []string{"POST /v1/uploads", "POST /v1/uploads/u/parts", "POST /v1/uploads/u/complete", "POST /v1/uploads/u/cancel"}, asked)
}

func TestRawRefusals(t *testing.T) {
	l := serve(t, false)
	ctx, raw := context.Background(), newBackend(t, l.url, openai.Config{}).Raw()
	_, err := raw.Create(ctx, api.Spec{Filename: "f", Purpose: "fun", MimeType: "a/b", Bytes: 1})
	require.Equal(t, api.Refused, api.KindOf(err))
	require.ErrorContains(t, err, "'fun' is not one of")
	got, err := raw.AddPart(ctx, "upload_x", section([]byte("abc")))
	require.Empty(t, got)
	require.ErrorContains(t, err, "No such Upload object: upload_x")
	// The Backend reports success; Raw reports what the API says.
	_, err = raw.Cancel(ctx, "upload_x")
	require.Equal(t, api.Gone, api.KindOf(err))
}

// A placeholder key is not a secret. Redacting it would damage IDs that contain it.
func TestAPlaceholderIsNotRedacted(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, err := io.WriteString(w, `{"error":{"message":"No such Upload object: upload_axb"}}`)
		require.NoError(t, err)
	}))
	t.Cleanup(server.Close)
	_, err := newBackend(t, server.URL, openai.Config{Key: openai.StaticKey("x")}).Raw().Cancel(context.Background(), "upload_axb")
	require.ErrorContains(t, err, "No such Upload object: upload_axb")
}
