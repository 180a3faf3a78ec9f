package openai_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
)

var silent = log.New(io.Discard, "", 0)

func TestBaseURL(t *testing.T) {
	for url, want := range map[string]string{
		"":                             "",
		"https://api.openai.com/v1":    "",
		"https://api.openai.com/v1/":   "",
		"http://127.0.0.1:8080/v1":     "",
		"http://127.8.9.10/v1":         "",
		"http://[::1]:8080/v1":         "",
		"http://localhost:8080/v1":     "",
		"http://10.0.0.1/v1":           "would send the API key over plain http to another machine",
		"http://localhost.example/v1":  "would send the API key over plain http to another machine",
		"http://127.0.0.1.example/v1":  "would send the API key over plain http to another machine",
		"http://[fe80::1]/v1":          "would send the API key over plain http to another machine",
		"api.openai.com/v1":            "must begin with https:// or http://",
		"ftp://api.openai.com/v1":      "must begin with https:// or http://",
		"https:///v1":                  "names no host",
		"https://user:secret@host/v1":  "must not carry a user name or password",
		"https://host/v1?api-version=": "must end with the path",
		"https://host/v1#x":            "must end with the path",
		"https://host/v1?key=secret":   "must end with the path",
		"https://host/v1#secret":       "must end with the path",
		"user:secret@host/v1":          "must not carry a user name or password",
		"secret@host/v1":               "must not carry a user name or password",
		"//user:secret@host/v1":        "must not carry a user name or password",
		"https:user:secret@host/v1":    "must not carry a user name or password",
		"https:/user:secret@host/v1":   "must not carry a user name or password",
		"https://user:sec/secret@host": "must not carry a user name or password",
		"https://user:secret%zz@host":  "must not carry a user name or password",
		"https://user:secret@ho st/v1": "must not carry a user name or password",
		"https://user:secret\x00@host": "must not carry a user name or password",
		"https://user:se#secret@host":  "must not carry a user name or password",
		"https://user:1#secret@host":   "must not carry a user name or password",
		"https://user:1?secret@host":   "must not carry a user name or password",
		"https://ho st/v1":             "invalid character",
		"https://host:port/v1":         "invalid port",
	} {
		t.Run(url, func(t *testing.T) {
			b, err := openai.New(openai.Config{BaseURL: url, Key: openai.StaticKey(key)})
			if want == "" {
				require.NoError(t, err)
				b.Close()
				return
			}
			require.ErrorContains(t, err, want)
			require.NotContains(t, err.Error(), key)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestPlainHTTPElsewhere(t *testing.T) {
	const elsewhere = "http://api.example/v1"
	b, err := openai.New(openai.Config{BaseURL: elsewhere, Key: openai.StaticKey(key), InsecureHTTP: true})
	require.NoError(t, err)
	b.Close()
	b, err = openai.New(openai.Config{BaseURL: elsewhere})
	require.NoError(t, err, "there is no key that could be read")
	b.Close()
}

// TestKeyThatAppearsLater starts without a key, which is allowed over plain http.
// The key file gets one when the server has answered 401.
func TestKeyThatAppearsLater(t *testing.T) {
	asked := 0
	proxied.Store(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the key was sent over plain http")
		}
		answer(w, http.StatusUnauthorized, apiError("Missing bearer authentication.", ""))
	})
	b, err := openai.New(openai.Config{BaseURL: "http://api.example/v1", Key: func() (string, error) {
		if asked++; asked == 1 {
			return "", nil
		}
		return key, nil
	}})
	require.NoError(t, err)
	defer b.Close()
	_, err = b.Create(t.Context(), spec)
	require.Equal(t, api.Denied, api.KindOf(err))
}

// TestProxy has TestMain name a proxy in the environment, which Go reads once.
func TestProxy(t *testing.T) {
	proxied.Store(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.String(); got != "http://api.example/v1/uploads" {
			t.Errorf("the proxy was asked for %s", got)
		}
		answer(w, http.StatusOK, object{"id": "upload_1"})
	})
	b, err := openai.New(openai.Config{BaseURL: "http://api.example/v1", Key: openai.StaticKey(key), InsecureHTTP: true})
	require.NoError(t, err)
	defer b.Close()
	up, err := b.Create(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, "upload_1", up.ID)
}

func TestBadKeys(t *testing.T) {
	for name, test := range map[string]struct {
		source openai.KeySource
		want   string
	}{
		"unreadable": {func() (string, error) { return "", errors.New("open key: no such file") }, "read the API key: open key: no such file"},
		"two lines":  {openai.StaticKey(key + "\n" + key), "give the key alone"},
		"not ASCII":  {openai.StaticKey(key + "é"), "give the key alone"},
		"a control":  {openai.StaticKey(key + "\x00"), "give the key alone"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openai.New(openai.Config{Key: test.source})
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), key)
		})
	}
}

// keyFile is a KeySource that a test can change.
type keyFile struct {
	mu    sync.Mutex
	key   string
	err   error
	reads int
}

func (f *keyFile) read() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return f.key, f.err
}

func (f *keyFile) set(key string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.key, f.err = key, err
}

func TestKeyRotation(t *testing.T) {
	const rotated = "sk-rotated-fedcba9876543210"
	var valid atomic.Value
	valid.Store(key)
	var requests atomic.Int64
	file := &keyFile{key: key + "\n"}
	b := fake(t, openai.Config{Key: file.read}, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		if got := r.Header.Get("Authorization"); got != "Bearer "+valid.Load().(string) {
			answer(w, http.StatusUnauthorized, apiError("Incorrect API key provided: "+strings.TrimPrefix(got, "Bearer ")+".", "invalid_api_key"))
			return
		}
		answer(w, http.StatusOK, object{"id": "part_1"})
	})
	send := func() error {
		_, err := b.AddPart(t.Context(), "upload_1", section([]byte("abcdef")))
		return err
	}
	require.NoError(t, send())
	require.Equal(t, 1, file.reads, "once, in New")

	// The key was revoked, and the file still has the old one.
	valid.Store(rotated)
	require.EqualError(t, send(), "part upload_1: Incorrect API key provided: [API key].")
	require.Equal(t, int64(2), requests.Load(), "the same key is not tried twice")

	// The file cannot be read just now.
	file.set("", errors.New("permission denied"))
	require.EqualError(t, send(), "part upload_1: Incorrect API key provided: [API key].; read the API key: permission denied")

	// It has the new one. Of many calls that are refused at once, one reads it.
	file.set(rotated, nil)
	reads := file.reads
	var sending sync.WaitGroup
	for range 8 {
		sending.Go(func() {
			if err := send(); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	require.Equal(t, reads+1, file.reads)

	// Neither the old key nor the new one is ever shown.
	valid.Store("another")
	file.set(key, nil)
	err := send()
	require.Equal(t, api.Denied, api.KindOf(err))
	requireNoKey(t, err, key, rotated)
}

// requireNoKey checks every error of a chain, in every format.
func requireNoKey(t *testing.T, err error, keys ...string) {
	t.Helper()
	for _, format := range []string{"%v", "%+v", "%#v", "%q"} {
		for _, key := range keys {
			require.NotContains(t, fmt.Sprintf(format, err), key)
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			requireNoKey(t, inner, keys...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			requireNoKey(t, inner, keys...)
		}
	}
}

func TestNoKeyInErrors(t *testing.T) {
	for name, reply := range map[string]string{
		"message":         "HTTP/1.1 400 X\r\nConnection: close\r\n\r\n" + `{"error":{"message":"bad ` + key + `"}}`,
		"error page":      "HTTP/1.1 502 X\r\nConnection: close\r\n\r\n<p>" + key + "</p>",
		"many":            "HTTP/1.1 400 X\r\nConnection: close\r\n\r\n" + `{"error":{"message":"` + strings.Repeat(key+" ", 50) + `"}}`,
		"many in garbage": "HTTP/1.1 200 X\r\nConnection: close\r\n\r\n" + strings.Repeat(key+" ", 500),
		"garbage":         "HTTP/1.1 200 X\r\nConnection: close\r\n\r\n" + key,
		"id":              "HTTP/1.1 200 X\r\nConnection: close\r\n\r\n" + `{"id":"x","object":"` + key + `"}`,
		"malformed":       "HTTP/1.1 " + key + " X\r\n\r\n",
		"malformed field": "HTTP/1.1 200 OK\r\n" + key + "\r\n\r\n",
		"redirect":        "HTTP/1.1 301 X\r\nLocation: /" + key + "\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			url := rawServer(t, nil, func(conn net.Conn, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(conn, reply)
			})
			_, err := newBackend(t, url, openai.Config{}).Create(t.Context(), spec)
			require.Error(t, err)
			require.Contains(t, err.Error(), "[API key]")
			require.Less(t, len(err.Error()), 500)
			requireNoKey(t, err, key)
			requireNoKey(t, err, key[:8]) // nor what is left of it after a cut
		})
	}
}
