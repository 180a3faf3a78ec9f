package journal

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// transactions counts those in the write-ahead log.
func transactions(t *testing.T, j *Journal) (n int) {
	t.Helper()
	log, err := os.ReadFile(j.walName)
	require.NoError(t, err)
	const header, frameHeader = 32, 24 // bytes, of the format of SQLite
	page := int(binary.BigEndian.Uint32(log[8:]))
	for at := header; at+frameHeader+page <= len(log); at += frameHeader + page {
		if binary.BigEndian.Uint32(log[at+4:]) != 0 { // the last frame of a transaction has the size of the database
			n++
		}
	}
	return n
}

// TestChangesAreGrouped: what comes while a transaction is under way goes into the next
// one, and a change that fails takes no other with it.
func TestChangesAreGrouped(t *testing.T) {
	const puts = 100
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
	together := func(bad int) (before int, errs chan error) {
		errs = make(chan error, puts+bad)
		before = transactions(t, j)
		require.NoError(t, j.writer.paused(func() error {
			for i := range puts {
				go func() {
					errs <- j.Put(&Record{Key: backing.Key{Ino: uint64(i), Birth: int64(bad)}, Path: fmt.Sprint(i), State: state.Writing})
				}()
			}
			for range bad {
				go func() { errs <- j.exec("INSERT INTO files (ino) VALUES (1)") }()
			}
			require.Eventually(t, func() bool {
				j.writer.mu.Lock()
				defer j.writer.mu.Unlock()
				return len(j.writer.waiting) == puts+bad
			}, time.Minute, time.Millisecond)
			return nil
		}))
		return before, errs
	}

	before, errs := together(0)
	for range puts {
		require.NoError(t, <-errs)
	}
	require.Equal(t, before+1, transactions(t, j))

	_, errs = together(3)
	failed := 0
	for range puts + 3 {
		if <-errs != nil {
			failed++
		}
	}
	require.Equal(t, 3, failed)
	all, err := j.All()
	require.NoError(t, err)
	require.Len(t, all, 2*puts, "each record is there when its Put returns")
	require.NoError(t, j.DropParts(backing.Key{}), "no transaction is left open")
}
