//go:build linux

package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/localapi"
)

// testKey is the API key of these tests; where it must not be, it is looked for.
const testKey = "sk-e2e-0123456789abcdefghijklmnopqrstuv"

// api is an API server in the test's own process.
type api struct {
	*localapi.Server
	url string
}

func newAPI(t *testing.T) *api {
	dir, err := os.MkdirTemp(base, "api-")
	require.NoError(t, err)
	srv, err := localapi.Open(localapi.Options{Dir: filepath.Join(dir, "data"), Key: testKey})
	require.NoError(t, err)
	hs := httptest.NewServer(srv)
	t.Cleanup(func() {
		srv.Close()
		hs.Close()
		os.RemoveAll(dir)
	})
	return &api{srv, hs.URL + "/v1"}
}

// use makes the box's commands talk to this server.
func (a *api) use(b *box) {
	b.env = append(b.env, "OPENAI_API_KEY="+testKey, "OPENAI_BASE_URL="+a.url)
}

// block holds every part back until release is called; started is told of each.
// The blocked requests end with the client's patience or the server.
func (a *api) block(t *testing.T) (started <-chan struct{}, release func()) {
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
	a.SetIntercept(func(p localapi.Point) *localapi.Fault {
		if p.Op == localapi.OpPart && p.Stage == localapi.StageReceived {
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
func (a *api) refuse(status int, message string) {
	a.SetIntercept(func(p localapi.Point) *localapi.Fault {
		if p.Op == localapi.OpComplete && p.Stage == localapi.StageHead {
			return &localapi.Fault{Status: status, Message: message}
		}
		return nil
	})
}
