package uploader

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
)

// logged keeps the messages that were logged.
type logged struct {
	mu   sync.Mutex
	msgs []string
}

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }
func (l *logged) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logged) WithGroup(string) slog.Handler            { return l }

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.msgs = append(l.msgs, r.Message)
	return nil
}

func (l *logged) has(msg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.msgs {
		if m == msg {
			return true
		}
	}
	return false
}

func (l *logged) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.msgs = nil
}

// testUploader is an Uploader over an empty tree, without a Backend.
type testUploader struct {
	*Uploader
	dir string
}

func openTest(t *testing.T, o Options) testUploader {
	t.Helper()
	dir := t.TempDir()
	tree, err := backing.Open(dir)
	require.NoError(t, err)
	o.Tree, o.StateDir, o.PartSize = tree, t.TempDir(), 1024
	u, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, u.Close())
		require.NoError(t, tree.Close())
	})
	return testUploader{u, dir}
}

func (u testUploader) path(rel string) string { return filepath.Join(u.dir, rel) }

func (u testUploader) write(t *testing.T, rel, data string) {
	t.Helper()
	require.NoError(t, os.WriteFile(u.path(rel), []byte(data), 0o644))
}
