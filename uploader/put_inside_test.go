package uploader

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

func TestOldPutsAreForgotten(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	j, err := journal.Open(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	old, young := backing.Key{Ino: 1}, backing.Key{Ino: 2}
	for key, age := range map[backing.Key]time.Duration{old: putRemembered + time.Hour, young: putRemembered - time.Hour} {
		require.NoError(t, j.Put(&journal.Record{Key: key, State: state.Uploading, Since: now.Add(-age), Upload: api.Upload{ID: "upload"}}))
		require.NoError(t, j.PutPart(key, journal.Part{Len: 10, CRC: 1, ID: "part"}))
	}
	require.NoError(t, j.Close())

	u, err := Open(Options{StateDir: dir})
	require.NoError(t, err)
	r, err := u.journal.Get(old)
	require.NoError(t, err)
	require.Nil(t, r)
	parts, err := u.journal.Parts(old)
	require.NoError(t, err)
	require.Empty(t, parts)
	r, err = u.journal.Get(young)
	require.NoError(t, err)
	require.Len(t, r.Parts, 1)
	require.NoError(t, u.Close())
}
