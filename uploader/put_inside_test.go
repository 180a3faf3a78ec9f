package uploader

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
)

func TestOldPutsAreForgotten(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	j, err := openJournal(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	old, young := backing.Key{Ino: 1}, backing.Key{Ino: 2}
	for key, age := range map[backing.Key]time.Duration{old: putRemembered + time.Hour, young: putRemembered - time.Hour} {
		require.NoError(t, j.put(&record{key: key, state: StateUploading, since: now.Add(-age)}))
		require.NoError(t, j.putPart(key, partRecord{0, 10, 1, "part"}))
	}
	require.NoError(t, j.close())

	u, err := Open(Options{StateDir: dir})
	require.NoError(t, err)
	r, err := u.journal.get(old)
	require.NoError(t, err)
	require.Nil(t, r)
	parts, err := u.journal.parts(old)
	require.NoError(t, err)
	require.Empty(t, parts)
	r, err = u.journal.get(young)
	require.NoError(t, err)
	require.Len(t, r.parts, 1)
	require.NoError(t, u.Close())
}
