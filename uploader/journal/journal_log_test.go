package journal

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// TestLogIsReused writes without a pause what would fill a log many times over.
func TestLogIsReused(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	j.longest = 100
	for i := range 3 * walWrites {
		require.NoError(t, j.Put(&Record{
			Key: backing.Key{Ino: uint64(i), Birth: int64(i)}, Path: fmt.Sprint("d/f", i), State: state.Writing, Since: time.Now(),
		}))
	}
	info, err := os.Stat(filepath.Join(dir, "journal.db-wal"))
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(30<<20), "it would have some 40 MiB")
	require.NoError(t, j.Close())
}
