//go:build linux

package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// testKey is the API key of these tests; where it must not be, it is looked for.
const testKey = "sk-e2e-0123456789abcdefghijklmnopqrstuv"

// testAPI is an API server in the test's own process.
type testAPI struct {
	*local.Server
	url string
}

func newAPI(t *testing.T) *testAPI {
	dir, err := os.MkdirTemp(base, "api-")
	require.NoError(t, err)
	srv, err := local.Open(local.Options{Dir: filepath.Join(dir, "data"), Key: testKey})
	require.NoError(t, err)
	hs := httptest.NewServer(srv)
	t.Cleanup(func() {
		srv.Close()
		hs.Close()
		os.RemoveAll(dir)
	})
	return &testAPI{srv, hs.URL + "/v1"}
}

// use makes the box's commands talk to this server.
func (a *testAPI) use(b *box) {
	b.env = append(b.env, "OPENAI_API_KEY="+testKey, "OPENAI_BASE_URL="+a.url)
}

// block holds every part back until release is called; started is told of each.
// The blocked requests end with the client's testTimeout or the server.
func (a *testAPI) block(t *testing.T) (started <-chan struct{}, release func()) {
	began := make(chan struct{}, 100)
	gate := make(chan struct{})
	open := false
	release = func() {
		if !open {
			open = true
			a.SetIntercept(nil)
			close(gate)
		}
	}
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageReceived {
			select {
			case began <- struct{}{}:
			default:
			}
			select {
			case <-gate:
			case <-p.Request.Context().Done():
			}
		}
		return nil
	})
	t.Cleanup(release)
	return began, release
}

// refuse answers every Complete with this status and message.
func (a *testAPI) refuse(status int, message string) {
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpComplete && p.Stage == local.StageHead {
			return &local.Fault{Status: status, Message: message}
		}
		return nil
	})
}
