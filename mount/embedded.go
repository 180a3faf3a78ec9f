package mount

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"uploadfs/uploader/api/local"
)

// shutdownTimeout bounds how long the end of a mount waits for calls that
// other programs still have under way at the embedded server.
const shutdownTimeout = 5 * time.Second

// embedded is the API served from this process: on loopback, on a port of the
// kernel's choice, with a key that is made anew for each mount.
type embedded struct {
	BaseURL string `json:"base_url"`
	APIKey  string `json:"api_key"`

	server *local.Server
	file   string     // where people and scripts read the two above
	done   chan error // what Serve returned
}

// startEmbedded serves the API over the state directory's data.
func startEmbedded(dir *stateDir, log *slog.Logger) (*embedded, error) {
	key := make([]byte, 24)
	rand.Read(key)
	e := &embedded{APIKey: "local-" + hex.EncodeToString(key), file: dir.file(embeddedFile), done: make(chan error, 1)}
	server, err := local.Open(local.Options{Dir: dir.file(apiDir), Key: e.APIKey, Log: log})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	e.server, e.BaseURL = server, "http://"+l.Addr().String()+"/v1"
	go func() { e.done <- server.Serve(l) }() // ended and awaited by close
	text, err := json.MarshalIndent(e, "", "  ")
	if err == nil {
		err = writeFile(e.file, append(text, '\n'), 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *embedded) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := e.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // the requests still in flight are cut off
	}
	err = errors.Join(err, <-e.done)
	if rm := os.Remove(e.file); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}
