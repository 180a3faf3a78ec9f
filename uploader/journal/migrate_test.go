package journal

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// files1 is what the tables of files of versions 1 and 2 have in common.
const files1 = `
CREATE TABLE files (
	ino        INTEGER NOT NULL,
	birth      INTEGER NOT NULL,
	path       TEXT    NOT NULL,
	state      TEXT    NOT NULL,
	since      INTEGER NOT NULL,
	open       INTEGER NOT NULL,
	size       INTEGER NOT NULL,
	mtime      INTEGER NOT NULL,
	filename   TEXT NOT NULL, purpose TEXT NOT NULL, mime_type TEXT NOT NULL, expires INTEGER NOT NULL,
	declared   INTEGER NOT NULL,
	upload_id  TEXT    NOT NULL,
	created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
	file_id    TEXT NOT NULL, md5 TEXT NOT NULL,
	error      TEXT NOT NULL, kind INTEGER NOT NULL,
	superseded TEXT NOT NULL,`

// schema1 is the schema of version 1, as the programs of that version made it.
const schema1 = files1 + `
	PRIMARY KEY (ino, birth)
) WITHOUT ROWID;` + schemaRest + `
PRAGMA user_version = 1;`

// schemaRest is what the schemas of versions 1 and 2 have in common.
const schemaRest = `
CREATE INDEX files_state ON files(state);
CREATE INDEX files_path ON files(path);
CREATE TABLE parts (
	ino INTEGER NOT NULL, birth INTEGER NOT NULL,
	off INTEGER NOT NULL, len INTEGER NOT NULL,
	crc INTEGER NOT NULL,
	id  TEXT    NOT NULL,
	PRIMARY KEY (ino, birth, off)
) WITHOUT ROWID;
CREATE TABLE completing (
	upload_id TEXT    NOT NULL PRIMARY KEY,
	filename  TEXT    NOT NULL, purpose TEXT NOT NULL, declared INTEGER NOT NULL,
	since     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE disowned (
	file_id TEXT    NOT NULL PRIMARY KEY,
	since   INTEGER NOT NULL
) WITHOUT ROWID;`

// oldJournal makes a journal by these queries.
func oldJournal(t *testing.T, queries ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, Name)+"?_pragma=journal_mode(WAL)")
	require.NoError(t, err)
	for _, query := range queries {
		_, err := db.Exec(query)
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
	return dir
}

func TestAJournalOfVersion1(t *testing.T) {
	now := time.Now().UnixNano()
	dir := oldJournal(t,
		schema1,
		`INSERT INTO files VALUES (7, 8, 'a', 'uploading', 9, 1, 30, 0, 'a', 'batch', 'text/plain', 3600, 30, 'upload_1', 10, 11, '', '', '', 0, '["file-0"]')`,
		`INSERT INTO files VALUES (12, 13, 'b', 'completed', 14, 0, 5, 15, 'b', 'batch', 'text/plain', 0, 5, 'upload_2', 16, 17, 'file-2', '0123', '', 0, 'null')`,
		`INSERT INTO parts VALUES (7, 8, 0, 10, 4294967295, 'part_1'), (12, 13, 0, 5, 6, 'part_2')`,
		fmt.Sprintf(`INSERT INTO completing VALUES ('upload_1', 'a', 'batch', 30, %d)`, now),
		fmt.Sprintf(`INSERT INTO disowned VALUES ('file-gone', %d)`, now),
	)

	waiting := &Record{
		Key: backing.Key{Ino: 7, Birth: 8}, Path: "a", State: state.Uploading, Since: time.Unix(0, 9), Open: true, Size: 30,
		Spec:   api.Spec{Filename: "a", Purpose: "batch", MimeType: "text/plain", Bytes: 30, Expires: time.Hour},
		Upload: api.Upload{ID: "upload_1", ExpiresAt: time.Unix(0, 11)}, CreatedAt: time.Unix(0, 10), Completing: true,
		Superseded: Superseded{Count: 1, Last: []string{"file-0"}}, Parts: []Part{{0, 10, 1<<32 - 1, "part_1"}},
	}
	completed := &Record{
		Key: backing.Key{Ino: 12, Birth: 13}, Path: "b", State: state.Completed, Since: time.Unix(0, 14), Size: 5, Mtime: 15,
		Spec:   api.Spec{Filename: "b", Purpose: "batch", MimeType: "text/plain", Bytes: 5},
		Upload: api.Upload{ID: "upload_2", ExpiresAt: time.Unix(0, 17)}, CreatedAt: time.Unix(0, 16), FileID: "file-2", MD5: "0123",
		Parts: []Part{{0, 5, 6, "part_2"}},
	}
	for range 2 { // the second time there is nothing left to do
		j := openTestJournal(t, dir)
		for _, want := range []*Record{waiting, completed} {
			got, err := j.Get(want.Key)
			require.NoError(t, err)
			require.Equal(t, want, got, "what was not recorded is not known")
		}
		claimed, err := j.Claimed("file-gone")
		require.NoError(t, err)
		require.True(t, claimed)
		var found int
		require.NoError(t, j.write.QueryRow("PRAGMA user_version").Scan(&found))
		require.Equal(t, version, found)
		require.NoError(t, j.Close())
	}

	// It is a journal like any other now.
	j := openTestJournal(t, dir)
	defer func() { require.NoError(t, j.Close()) }()
	waiting.Ctime, waiting.Boot, waiting.Durable = 1, "boot", backing.Stamp{Size: 1, Mtime: 2, Ctime: 3}
	require.NoError(t, j.Put(waiting))
	got, err := j.Get(waiting.Key)
	require.NoError(t, err)
	require.Equal(t, waiting, got)
}

// schema2 is the schema of version 2, as the programs of that version made it.
const schema2 = files1 + `
	ctime      INTEGER NOT NULL,
	boot       TEXT    NOT NULL,
	durable_size INTEGER NOT NULL, durable_mtime INTEGER NOT NULL,
	durable_ctime INTEGER NOT NULL,
	PRIMARY KEY (ino, birth)
) WITHOUT ROWID;` + schemaRest + `
PRAGMA user_version = 2;`

func TestAJournalOfVersion2(t *testing.T) {
	dir := oldJournal(t,
		schema2,
		`INSERT INTO files VALUES (7, 8, 'a.tmp', 'held', 9, 0, 30, 15, '', '', '', 0, 0, '', 0, 0, '', '', '', 0, 'null', 16, 'boot', 30, 15, 17)`,
		`INSERT INTO files VALUES (12, 13, 'b', 'uploading', 14, 1, 5, 15, 'b', 'batch', 'text/plain', 0, 5, 'upload_2', 16, 17, '', '', '', 0, '["file-1"]', 18, 'boot', 0, 0, 0)`,
		`INSERT INTO parts VALUES (12, 13, 0, 5, 6, 'part_2')`,
	)

	held := &Record{
		Key: backing.Key{Ino: 7, Birth: 8}, Path: "a.tmp", State: state.Held, Since: time.Unix(0, 9), Size: 30, Mtime: 15, Ctime: 16,
		Boot: "boot", Durable: backing.Stamp{Size: 30, Mtime: 15, Ctime: 17},
	}
	waiting := &Record{
		Key: backing.Key{Ino: 12, Birth: 13}, Path: "b", State: state.Uploading, Since: time.Unix(0, 14), Open: true,
		Size: 5, Mtime: 15, Ctime: 18, Boot: "boot",
		Spec:   api.Spec{Filename: "b", Purpose: "batch", MimeType: "text/plain", Bytes: 5},
		Upload: api.Upload{ID: "upload_2", ExpiresAt: time.Unix(0, 17)}, CreatedAt: time.Unix(0, 16),
		Superseded: Superseded{Count: 1, Last: []string{"file-1"}}, Parts: []Part{{0, 5, 6, "part_2"}},
	}
	for range 2 { // the second time there is nothing left to do
		j := openTestJournal(t, dir)
		for _, want := range []*Record{held, waiting} {
			got, err := j.Get(want.Key)
			require.NoError(t, err)
			require.Equal(t, want, got, "no file of version 2 is temporary by its open")
		}
		var found int
		require.NoError(t, j.write.QueryRow("PRAGMA user_version").Scan(&found))
		require.Equal(t, version, found)
		require.NoError(t, j.Close())
	}

	// The mark can be written now, and survives.
	j := openTestJournal(t, dir)
	held.Temporary = true
	require.NoError(t, j.Put(held))
	require.NoError(t, j.Close())
	j = openTestJournal(t, dir)
	defer func() { require.NoError(t, j.Close()) }()
	got, err := j.Get(held.Key)
	require.NoError(t, err)
	require.Equal(t, held, got)
}

func TestDurabilityIsOfTheContentInTheRecord(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
	same, size, mtime := backing.Key{Ino: 1}, backing.Key{Ino: 2}, backing.Key{Ino: 3}
	for _, key := range []backing.Key{same, size, mtime} {
		require.NoError(t, j.Put(&Record{Key: key, Size: 10, Mtime: 20, Ctime: 30}))
	}
	require.NoError(t, j.MarkDurable(map[backing.Key]backing.Stamp{
		same: {Size: 10, Mtime: 20, Ctime: 31}, size: {Size: 11, Mtime: 20, Ctime: 30}, mtime: {Size: 10, Mtime: 21, Ctime: 30},
	}))
	for key, want := range map[backing.Key]backing.Stamp{same: {Size: 10, Mtime: 20, Ctime: 31}, size: {}, mtime: {}} {
		r, err := j.Get(key)
		require.NoError(t, err)
		require.Equal(t, want, r.Durable)
	}
}

func TestFilesGetOtherKeys(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
	a, b, c, d := backing.Key{Ino: 1}, backing.Key{Ino: 2}, backing.Key{Ino: 3}, backing.Key{Ino: 1<<64 - 1, Birth: 5}
	for i, key := range []backing.Key{a, b, c} {
		r := &Record{Key: key, Path: fmt.Sprint(i), FileID: fmt.Sprint("file-", i), Mtime: 7, Ctime: 8, Upload: api.Upload{ID: "upload"}}
		r.Supersede(fmt.Sprint("file-before-", i))
		require.NoError(t, j.Put(r))
		require.NoError(t, j.PutPart(key, Part{0, 1, 2, fmt.Sprint("part_", i)}))
	}
	require.NoError(t, j.Rekey(map[backing.Key]backing.Key{a: b, b: a, c: d})) // two change places
	for i, key := range []backing.Key{b, a, d} {
		r, err := j.Get(key)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), r.Path)
		require.Equal(t, backing.Stamp{Mtime: 7}, r.Stamp())
		require.Equal(t, []Part{{0, 1, 2, fmt.Sprint("part_", i)}}, r.Parts)
		require.Equal(t, []string{fmt.Sprint("file-before-", i)}, r.Superseded.Last)
	}
	all, err := j.All()
	require.NoError(t, err)
	require.Len(t, all, 3)
}
