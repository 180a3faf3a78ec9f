package uploader

import (
	"bytes"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
)

func openTestJournal(t *testing.T, dir string) *journal {
	t.Helper()
	j, err := openJournal(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return j
}

func TestJournalRoundTrip(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir)
	full := &record{
		key: backing.Key{Ino: 1<<64 - 1, Birth: -5}, path: "a/\xff%_?\n", state: StateRetrying, since: time.Unix(0, 1234567890123456789),
		open: true, size: 1 << 40, mtime: -3,
		spec:   Spec{Filename: "f", Purpose: "batch", MimeType: "text/jsonl", Bytes: 77, Expires: 2 * time.Hour},
		upload: Upload{ID: "upload_1", ExpiresAt: time.Unix(7, 8)}, created: time.Unix(5, 6), completing: true,
		fileID: "file-1", md5: "0123", err: "an error", kind: Quota, superseded: []string{`file-"quoted"`, "file-0"},
	}
	bare := &record{key: backing.Key{Ino: 2}, path: "b", state: StateEmpty, since: time.Unix(1, 0)}
	parts := []partRecord{{0, 10, 1<<32 - 1, "p0"}, {10, 5, 0, "p1"}}
	require.NoError(t, j.put(full))
	require.NoError(t, j.put(bare))
	require.NoError(t, j.completing("upload_1", full.spec, time.Now()))
	require.NoError(t, j.putPart(full.key, partRecord{10, 9, 3, "replaced"}))
	for i := len(parts) - 1; i >= 0; i-- {
		require.NoError(t, j.putPart(full.key, parts[i]))
	}
	require.NoError(t, j.close())

	j = openTestJournal(t, dir)
	got, err := j.get(full.key)
	require.NoError(t, err)
	want := *full
	want.parts = parts
	require.Equal(t, &want, got)
	got, err = j.get(bare.key)
	require.NoError(t, err)
	require.Equal(t, bare, got)
	got, err = j.get(backing.Key{Ino: 2, Birth: 1})
	require.NoError(t, err)
	require.Nil(t, got, "another birth is another file")

	counts, err := j.counts()
	require.NoError(t, err)
	require.Equal(t, map[State]int{StateRetrying: 1, StateEmpty: 1}, counts)
	all, err := j.all("WHERE state = ?", string(StateRetrying))
	require.NoError(t, err)
	require.Equal(t, []*record{full}, all)

	require.NoError(t, j.dropParts(full.key))
	require.NoError(t, j.delete(bare.key))
	all, err = j.all("")
	require.NoError(t, err)
	require.Equal(t, []*record{full}, all)
	require.NoError(t, j.close())
}

func TestJournalRenamesWhatLiesBelow(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.close()) }()
	for _, c := range []struct {
		from, to string
		paths    map[string]string
	}{
		{"d", "e/f", map[string]string{"d": "e/f", "d/a": "e/f/a", "d/a/b": "e/f/a/b", "d0": "d0", "d-": "d-", "dd/a": "dd/a", "x/d/a": "x/d/a", "D/a": "D/a"}},
		{"%", "_", map[string]string{"%/a": "_/a", "x/a": "x/a", "%%/a": "%%/a", "_/b": "_/b"}},
		{"_", "%", map[string]string{"_/a": "%/a", "x/a": "x/a"}},
		{"\xff\xe3", "ü", map[string]string{"\xff\xe3/\x80\x81a": "ü/\x80\x81a", "\xff/a": "\xff/a"}},
		{"ü\xe3", "\x80", map[string]string{"ü\xe3/a": "\x80/a", "ü\xe3": "\x80"}},
		{"/aside", "q", map[string]string{"/aside/a": "q/a", "aside/a": "aside/a"}},
	} {
		var keys []backing.Key
		var want []string
		for was, is := range c.paths {
			key := backing.Key{Ino: uint64(len(keys) + 1)}
			require.NoError(t, j.put(&record{key: key, path: was, state: StateEmpty}))
			keys, want = append(keys, key), append(want, is)
		}
		require.NoError(t, j.renamed(c.from, c.to))
		for i, key := range keys {
			r, err := j.get(key)
			require.NoError(t, err)
			require.Equal(t, want[i], r.path)
		}
	}
}

func TestJournalKnowsWhoseAFileIs(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.close()) }()
	a, b := backing.Key{Ino: 1}, backing.Key{Ino: 2}
	require.NoError(t, j.put(&record{key: a, fileID: "file-1", superseded: []string{"file-0", `file-"`}}))
	require.NoError(t, j.put(&record{key: b}))
	claims := func(want map[string]bool) {
		t.Helper()
		for id, claimed := range want {
			got, err := j.claimed(id)
			require.NoError(t, err)
			require.Equal(t, claimed, got, id)
		}
	}
	claims(map[string]bool{"file-1": true, "file-0": true, `file-"`: true, "file-": false, "file-2": false})

	// What was removed is gone, but its Files are still nobody else's.
	require.NoError(t, j.delete(a))
	require.NoError(t, j.delete(b))
	require.NoError(t, j.disown("file-3"))
	claims(map[string]bool{"file-1": true, "file-0": true, `file-"`: true, "file-3": true, "file-2": false})
}

func TestAPartTakesThePlaceOfThoseItOverlaps(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.close()) }()
	key := backing.Key{Ino: 1}
	for i := range int64(6) {
		require.NoError(t, j.putPart(key, partRecord{10 * i, 10, 0, fmt.Sprint(i)}))
		require.NoError(t, j.putPart(backing.Key{Ino: 2}, partRecord{10 * i, 10, 0, fmt.Sprint(i)}))
	}
	require.NoError(t, j.putPart(key, partRecord{15, 25, 0, "new"}))
	require.NoError(t, j.putPart(key, partRecord{50, 10, 0, "same"}))
	parts, err := j.parts(key)
	require.NoError(t, err)
	require.Equal(t, []partRecord{{0, 10, 0, "0"}, {15, 25, 0, "new"}, {40, 10, 0, "4"}, {50, 10, 0, "same"}}, parts)
	parts, err = j.parts(backing.Key{Ino: 2})
	require.NoError(t, err)
	require.Len(t, parts, 6)
}

func TestTouchedIsForCompletedFiles(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.close()) }()
	for i, state := range []State{StateCompleted, StateWriting} {
		key := backing.Key{Ino: uint64(i)}
		require.NoError(t, j.put(&record{key: key, state: state, mtime: 1}))
		require.NoError(t, j.touched(key, 2))
		r, err := j.get(key)
		require.NoError(t, err)
		require.EqualValues(t, 2-i, r.mtime)
	}
}

func TestALaterJournalIsRefusedAndLeftAlone(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir)
	_, err := j.write.Exec(fmt.Sprintf("PRAGMA user_version = %d", journalVersion+1))
	require.NoError(t, err)
	require.NoError(t, j.close())
	refused(t, dir, fmt.Sprintf("version %d", journalVersion+1))
}

func TestADamagedJournalIsRefusedAndLeftAlone(t *testing.T) {
	name := func(dir string) string { return filepath.Join(dir, "journal.db") }
	t.Run("no database", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(name(dir), bytes.Repeat([]byte("rubbish "), 1000), 0o600))
		refused(t, dir, "damaged")
	})
	t.Run("another program's", func(t *testing.T) {
		dir := t.TempDir()
		db, err := sql.Open("sqlite", name(dir))
		require.NoError(t, err)
		_, err = db.Exec("CREATE TABLE other (x)")
		require.NoError(t, err)
		require.NoError(t, db.Close())
		refused(t, dir, "something else")
	})
	t.Run("pages overwritten", func(t *testing.T) {
		dir := t.TempDir()
		j := openTestJournal(t, dir)
		for i := range 500 {
			require.NoError(t, j.put(&record{key: backing.Key{Ino: uint64(i)}, path: "some/path/or/other"}))
		}
		require.NoError(t, j.close())
		f, err := os.OpenFile(name(dir), os.O_RDWR, 0)
		require.NoError(t, err)
		info, err := f.Stat()
		require.NoError(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte{0xA5}, int(info.Size())-8192), 8192)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		refused(t, dir, "damaged")
	})
}

// refused checks that Open says why it refuses the journal in dir, and that
// neither the journal nor the tree has changed.
func refused(t *testing.T, dir, why string) {
	t.Helper()
	name := filepath.Join(dir, "journal.db")
	before, err := os.ReadFile(name)
	require.NoError(t, err)
	files := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(files, "f"), []byte("x"), 0o644))
	tree, err := backing.Open(files)
	require.NoError(t, err)
	defer tree.Close()
	_, err = Open(Options{Tree: tree, StateDir: dir, PartSize: 1024})
	require.ErrorContains(t, err, why)
	require.ErrorContains(t, err, name)
	after, err := os.ReadFile(name)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after))
}

func TestAnEmptyJournalFileIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "journal.db"), nil, 0o600))
	j := openTestJournal(t, dir)
	require.NoError(t, j.put(&record{key: backing.Key{Ino: 1}, state: StateEmpty}))
	require.NoError(t, j.close())
}

func TestJournalInADirectoryWithAnOddName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a ?b#c%20&d=e")
	require.NoError(t, os.Mkdir(dir, 0o700))
	j := openTestJournal(t, dir)
	require.NoError(t, j.close())
	require.FileExists(t, filepath.Join(dir, "journal.db"))
}

func TestAFullDiskIsTheWriters(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.close()) }()
	var pages int
	require.NoError(t, j.write.QueryRow("PRAGMA page_count").Scan(&pages))
	require.NoError(t, j.write.QueryRow(fmt.Sprintf("PRAGMA max_page_count = %d", pages)).Scan(&pages))
	var err error
	for i := 0; err == nil && i < 10000; i++ {
		err = j.put(&record{key: backing.Key{Ino: uint64(i)}, path: "some/path/or/other", state: StateWriting})
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, Local, KindOf(err))

	// A file that cannot be recorded is not lost, and a transaction that
	// fails half way leaves none open.
	require.ErrorIs(t, fill(j), syscall.ENOSPC)
	require.NoError(t, j.touched(backing.Key{Ino: 0}, 1))
}

// fill removes files until the remembering of their Files fails.
func fill(j *journal) error {
	for i := range 10000 {
		key := backing.Key{Ino: uint64(i)}
		if _, err := j.write.Exec(`UPDATE files SET superseded = ? WHERE ino = ?`, fmt.Sprintf(`["%01000d"]`, i), i); err != nil {
			return journalError(err)
		}
		if err := j.delete(key); err != nil {
			return err
		}
	}
	return nil
}

func TestTheLogIsBroughtToTheDatabase(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir)
	defer func() { require.NoError(t, j.close()) }()
	r := &record{key: backing.Key{Ino: 1}, path: "f", state: StateRetrying}
	database := func() time.Time {
		info, err := os.Stat(filepath.Join(dir, "journal.db"))
		require.NoError(t, err)
		return info.ModTime()
	}
	for range 3 {
		before := database()
		j.writes.Store(walWrites - 1)
		require.NoError(t, j.put(r))
		require.Eventually(t, func() bool { return database().After(before) }, 5*time.Minute, time.Millisecond)
	}
}
