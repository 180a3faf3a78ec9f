package journal

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

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

func openTestJournal(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return j
}

func TestJournalRoundTrip(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir)
	full := &Record{
		Key: backing.Key{Ino: 1<<64 - 1, Birth: -5}, Path: "a/\xff%_?\n", State: state.Retrying, Since: time.Unix(0, 1234567890123456789),
		Open: true, Size: 1 << 40, Mtime: -3,
		Spec:   api.Spec{Filename: "f", Purpose: "batch", MimeType: "text/jsonl", Bytes: 77, Expires: 2 * time.Hour},
		Upload: api.Upload{ID: "upload_1", ExpiresAt: time.Unix(7, 8)}, CreatedAt: time.Unix(5, 6), Completing: true,
		FileID: "file-1", MD5: "0123", Err: "an error", Kind: api.Quota, Superseded: Superseded{Count: 2, Last: []string{`file-"quoted"`, "file-0"}, unsaved: 2},
		Ctime: 1<<62 + 1, Boot: "a boot", Durable: backing.Stamp{Size: 4, Mtime: -4, Ctime: 5}, Temporary: true,
	}
	bare := &Record{Key: backing.Key{Ino: 2}, Path: "b", State: state.Empty, Since: time.Unix(1, 0)}
	parts := []Part{{0, 10, 1<<32 - 1, "p0"}, {10, 5, 0, "p1"}}
	require.NoError(t, j.Put(full))
	require.NoError(t, j.Put(full), "what is in the journal is not written again")
	require.NoError(t, j.Put(bare))
	require.NoError(t, j.Completing("upload_1", full.Spec, time.Now()))
	require.NoError(t, j.PutPart(full.Key, Part{10, 9, 3, "replaced"}))
	for i := len(parts) - 1; i >= 0; i-- {
		require.NoError(t, j.PutPart(full.Key, parts[i]))
	}
	require.NoError(t, j.Close())

	j = openTestJournal(t, dir)
	got, err := j.Get(full.Key)
	require.NoError(t, err)
	want := *full
	want.Parts = parts
	require.Equal(t, &want, got)
	got, err = j.Get(bare.Key)
	require.NoError(t, err)
	require.Equal(t, bare, got)
	got, err = j.Get(backing.Key{Ino: 2, Birth: 1})
	require.NoError(t, err)
	require.Nil(t, got, "another birth is another file")

	counts, err := j.Counts()
	require.NoError(t, err)
	require.Equal(t, map[state.State]int{state.Retrying: 1, state.Empty: 1}, counts)
	all, err := j.query("WHERE state = ?", string(state.Retrying))
	require.NoError(t, err)
	require.Equal(t, []*Record{withoutLists(full)}, all)

	require.NoError(t, j.DropParts(full.Key))
	require.NoError(t, j.Delete(bare.Key))
	all, err = j.query("")
	require.NoError(t, err)
	require.Equal(t, []*Record{withoutLists(full)}, all)
	require.NoError(t, j.Close())
}

// withoutLists is the record as queries of many files return it.
func withoutLists(r *Record) *Record {
	short := *r
	short.Superseded.Last, short.Parts = nil, nil
	return &short
}

func TestJournalRenamesWhatLiesBelow(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
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
			require.NoError(t, j.Put(&Record{Key: key, Path: was, State: state.Empty}))
			keys, want = append(keys, key), append(want, is)
		}
		require.NoError(t, j.Renamed(c.from, c.to))
		for i, key := range keys {
			r, err := j.Get(key)
			require.NoError(t, err)
			require.Equal(t, want[i], r.Path)
		}
	}
}

// A name may be any bytes but a slash, and all of them lie in the whole tree.
func TestBelow(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	paths := []string{"d", "d.txt", "d/a", "d/b/c", "d0", "\xff\xff\xff"}
	for i, path := range paths {
		require.NoError(t, j.Put(&Record{Key: backing.Key{Ino: uint64(i)}, Path: path, State: state.Failed}))
	}
	require.NoError(t, j.Put(&Record{Key: backing.Key{Ino: 99}, Path: "d/completed", State: state.Completed}))
	for dir, want := range map[string][]string{"": paths, "d": {"d/a", "d/b/c"}, "d/b": {"d/b/c"}, "e": nil} {
		got, err := j.Below(dir, []state.State{state.Failed, state.Interrupted})
		require.NoError(t, err)
		require.Equal(t, want, got, dir)
	}
}

func TestJournalKnowsWhoseAFileIs(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
	a, b := backing.Key{Ino: 1}, backing.Key{Ino: 2}
	r := &Record{Key: a, FileID: "file-1"}
	r.Supersede("file-0")
	r.Supersede(`file-"`)
	require.NoError(t, j.Put(r))
	require.NoError(t, j.Put(&Record{Key: b}))
	claims := func(want map[string]bool) {
		t.Helper()
		for id, claimed := range want {
			got, err := j.Claimed(id)
			require.NoError(t, err)
			require.Equal(t, claimed, got, id)
		}
	}
	claims(map[string]bool{"file-1": true, "file-0": true, `file-"`: true, "file-": false, "file-2": false})

	// What was removed is gone, but its Files are still no other file's.
	require.NoError(t, j.Delete(a))
	require.NoError(t, j.Delete(b))
	require.NoError(t, j.Disown("file-3"))
	claims(map[string]bool{"file-1": true, "file-0": true, `file-"`: true, "file-3": true, "file-2": false})
}

func TestAPartTakesThePlaceOfThoseItOverlaps(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
	key := backing.Key{Ino: 1}
	for i := range int64(6) {
		require.NoError(t, j.PutPart(key, Part{10 * i, 10, 0, fmt.Sprint(i)}))
		require.NoError(t, j.PutPart(backing.Key{Ino: 2}, Part{10 * i, 10, 0, fmt.Sprint(i)}))
	}
	require.NoError(t, j.PutPart(key, Part{15, 25, 0, "new"}))
	require.NoError(t, j.PutPart(key, Part{50, 10, 0, "same"}))
	parts, err := j.Parts(key)
	require.NoError(t, err)
	require.Equal(t, []Part{{0, 10, 0, "0"}, {15, 25, 0, "new"}, {40, 10, 0, "4"}, {50, 10, 0, "same"}}, parts)
	parts, err = j.Parts(backing.Key{Ino: 2})
	require.NoError(t, err)
	require.Len(t, parts, 6)
}

func TestStateOf(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
	key := backing.Key{Ino: 1<<64 - 1, Birth: -1}
	got, err := j.StateOf(key)
	require.NoError(t, err)
	require.Empty(t, got)
	require.NoError(t, j.Put(&Record{Key: key, State: state.Excluded}))
	got, err = j.StateOf(key)
	require.NoError(t, err)
	require.Equal(t, state.Excluded, got)
}

func TestALaterJournalIsRefusedAndLeftAlone(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir)
	_, err := j.write.Exec(fmt.Sprintf("PRAGMA user_version = %d", version+1))
	require.NoError(t, err)
	require.NoError(t, j.Close())
	refused(t, dir, fmt.Sprintf("version %d", version+1))
}

func TestADamagedJournalIsRefusedAndLeftAlone(t *testing.T) {
	name := func(dir string) string { return filepath.Join(dir, Name) }
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
			require.NoError(t, j.Put(&Record{Key: backing.Key{Ino: uint64(i)}, Path: "some/path/or/other"}))
		}
		require.NoError(t, j.Close())
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

// refused checks that Open says why it refuses the journal in dir, and that the
// journal has not changed.
func refused(t *testing.T, dir, why string) {
	t.Helper()
	name := filepath.Join(dir, Name)
	before, err := os.ReadFile(name)
	require.NoError(t, err)
	_, err = Open(dir, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, why)
	require.ErrorContains(t, err, name)
	after, err := os.ReadFile(name)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after))
}

func TestAnEmptyJournalFileIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, Name), nil, 0o600))
	j := openTestJournal(t, dir)
	require.NoError(t, j.Put(&Record{Key: backing.Key{Ino: 1}, State: state.Empty}))
	require.NoError(t, j.Close())
}

func TestJournalInADirectoryWithAnOddName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a ?b#c%20&d=e")
	require.NoError(t, os.Mkdir(dir, 0o700))
	j := openTestJournal(t, dir)
	require.NoError(t, j.Close())
	require.FileExists(t, filepath.Join(dir, Name))
}

func TestAFullDiskIsTheWriters(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
	var pages int
	require.NoError(t, j.write.QueryRow("PRAGMA page_count").Scan(&pages))
	require.NoError(t, j.write.QueryRow(fmt.Sprintf("PRAGMA max_page_count = %d", pages)).Scan(&pages))
	var err error
	for i := 0; err == nil && i < 10000; i++ {
		err = j.Put(&Record{Key: backing.Key{Ino: uint64(i)}, Path: "some/path/or/other", State: state.Writing})
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, api.Local, api.KindOf(err))

	// A file that cannot be recorded is not lost, and a transaction that
	// fails half way leaves none open.
	require.ErrorIs(t, fill(j), syscall.ENOSPC)
	require.NoError(t, j.DropParts(backing.Key{Ino: 0}))
}

// fill removes files until the remembering of their Files fails.
func fill(j *Journal) error {
	for i := range 10000 {
		key := backing.Key{Ino: uint64(i)}
		if _, err := j.write.Exec(`UPDATE files SET file_id = ? WHERE ino = ?`, fmt.Sprintf(`%01000d`, i), i); err != nil {
			return failure(err)
		}
		if err := j.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

func TestTheLogIsBroughtToTheDatabase(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir)
	defer func() { require.NoError(t, j.Close()) }()
	r := &Record{Key: backing.Key{Ino: 1}, Path: "f", State: state.Retrying}
	database := func() time.Time {
		info, err := os.Stat(filepath.Join(dir, Name))
		require.NoError(t, err)
		return info.ModTime()
	}
	for range 3 {
		before := database()
		j.writes.Store(walWrites - 1)
		require.NoError(t, j.Put(r))
		require.Eventually(t, func() bool { return database().After(before) }, 5*time.Minute, time.Millisecond)
	}
}
