//go:build linux

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The key is tried before the mount is ready. A refused one fails the first mount of a
// state directory, and binds it to nothing. Everything else is a note.
func TestMountTriesTheKey(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	key := b.write("key", "sk-wrong-0123456789abcdefghijklmnopqrstuv")
	keyFile := []string{"--api-key-file", key}
	at := func(url string) { b.env = append(b.env, "OPENAI_BASE_URL="+url) }
	noted := func(text string, flags ...string) {
		t.Helper()
		r := b.uploadfs(b.mountArgs(append(flags, keyFile...)...)...)
		require.Zero(t, r.code, r.stderr)
		b.cleanup()
		if text == "" {
			require.Empty(t, r.stderr)
			require.Empty(t, b.status().Notes)
		} else {
			require.Regexp(t, `^note: `+text+`[^\n]*\n$`, r.stderr)
			require.Len(t, b.status().Notes, 1)
			require.Regexp(t, text, b.ok("status", b.point))
		}
		b.ok("unmount", b.point)
	}

	at(server.url)
	b.refused(1, "the API refuses the key (Incorrect API key provided", b.mountArgs(keyFile...)...)
	require.False(t, b.mounted())
	b.refused(1, "the API refuses the key", b.mountArgs(append(keyFile, "--foreground", "--log-level", "error")...)...)

	forbidding := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "/v1/files", r.URL.Path)
		w.WriteHeader(http.StatusForbidden)
		w.Write([]byte(`{"error":{"message":"You have insufficient permissions."}}`))
	}))
	defer forbidding.Close()
	at(forbidding.URL + "/v1")
	noted(`the API does not let this key list Files \(You have insufficient permissions\.\)`)
	require.NoError(t, os.RemoveAll(b.state)) // which is bound

	at(server.url)
	noted("", "--no-check")
	noted(`the API refuses the key \(Incorrect API key provided`) // it has been mounted before
	require.NoError(t, os.WriteFile(key, []byte(testKey), 0o644))
	noted("")

	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	require.NoError(t, os.RemoveAll(b.state))
	at(silent.URL + "/v1")
	noted(`the endpoint does not answer \(no answer in 3s\)`)
	silent.CloseClientConnections()
	silent.Close()
	noted(`the endpoint does not answer \(no answer: .*connection refused\)`)
}
