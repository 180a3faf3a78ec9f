package uploader

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// silent is a Backend that answers nothing until its caller gives up.
type silent struct{}

func (silent) Create(ctx context.Context, _ api.Spec) (api.Upload, error) {
	<-ctx.Done()
	return api.Upload{}, context.Cause(ctx)
}

func (silent) AddPart(ctx context.Context, _ string, _ *io.SectionReader) (string, error) {
	<-ctx.Done()
	return "", context.Cause(ctx)
}

func (silent) Complete(ctx context.Context, _ string, _ []string, _ string) (api.File, error) {
	<-ctx.Done()
	return api.File{}, context.Cause(ctx)
}

func (silent) Cancel(context.Context, string) error { return nil }

func (silent) FindFiles(ctx context.Context, _ api.Spec, _ time.Time) ([]api.File, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// BenchmarkRecovery opens a tree of 20,000 files, which has to take less than the
// two seconds in which a mount should be ready.
func BenchmarkRecovery(b *testing.B) {
	const dirs, each = 200, 100
	for _, was := range []state.State{state.Completed, state.Uploading, state.Interrupted} {
		b.Run(string(was), func(b *testing.B) {
			dir := b.TempDir()
			j, err := journal.Open(dir, slog.New(slog.DiscardHandler))
			require.NoError(b, err)
			content := []byte("content")
			for d := range dirs {
				sub := filepath.Join(dir, "tree", fmt.Sprint(d))
				require.NoError(b, os.MkdirAll(sub, 0o755))
				for i := range each {
					require.NoError(b, os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), content, 0o644))
				}
			}
			tree, err := backing.Open(filepath.Join(dir, "tree"))
			require.NoError(b, err)
			require.NoError(b, tree.Walk(func(rel string, info backing.Info) error {
				return j.Put(&journal.Record{Key: info.Key, Path: rel, State: was, Since: time.Now(),
					Size: info.Size, Mtime: info.Mtime, Ctime: info.Ctime, Boot: "a boot"})
			}))
			require.NoError(b, j.Close())
			for b.Loop() {
				u, err := Open(Options{Backend: silent{}, Tree: tree, StateDir: dir, BootID: "a boot"})
				require.NoError(b, err)
				b.StopTimer()
				counts, err := u.journal.Counts()
				require.NoError(b, err)
				require.Equal(b, map[state.State]int{was: dirs * each}, counts)
				require.NoError(b, u.Close())
				b.StartTimer()
			}
			require.NoError(b, tree.Close())
		})
	}
}
