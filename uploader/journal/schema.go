package journal

import (
	"errors"
	"fmt"
	"time"

	"uploadfs/uploader/api"
)

// version is the version of the schema. A later program migrates an
// older one; an older program refuses a later one.
const version = 4

// schema is the journal: what must survive a killed daemon. A file is named by
// its backing inode and birth time, so rename, hard links, unlink and the reuse
// of inode numbers cannot confuse it; its path is a hint for people.
const schema = `
CREATE TABLE files (
	ino        INTEGER NOT NULL,
	birth      INTEGER NOT NULL,  -- ns since the epoch
	path       TEXT    NOT NULL,
	state      TEXT    NOT NULL,
	since      INTEGER NOT NULL,  -- ns, of the state
	open       INTEGER NOT NULL,  -- a handle that may change the file is open
	size       INTEGER NOT NULL,  -- of the content the state speaks of
	mtime      INTEGER NOT NULL,  -- ns, of the same
	filename   TEXT NOT NULL, purpose TEXT NOT NULL, mime_type TEXT NOT NULL, expires INTEGER NOT NULL,
	declared   INTEGER NOT NULL,  -- bytes the Upload was created for
	upload_id  TEXT    NOT NULL,
	created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, -- ns, of the Upload
	file_id    TEXT NOT NULL, md5 TEXT NOT NULL,
	error      TEXT NOT NULL, kind INTEGER NOT NULL,
	ctime      INTEGER NOT NULL,  -- ns, of the content the state speaks of; 0 if not known
	boot       TEXT    NOT NULL,  -- boot ID of the kernel under which the content was last known to be whole
	durable_size INTEGER NOT NULL, durable_mtime INTEGER NOT NULL, -- when the content was on the disk;
	durable_ctime INTEGER NOT NULL,                                -- all 0 if it is not known to be
	temporary  INTEGER NOT NULL,  -- created as a file that gets its final name later, and not renamed since
	PRIMARY KEY (ino, birth)
) WITHOUT ROWID;
CREATE INDEX files_state ON files(state);
CREATE INDEX files_path ON files(path);
CREATE TABLE parts (
	ino INTEGER NOT NULL, birth INTEGER NOT NULL,
	off INTEGER NOT NULL, len INTEGER NOT NULL,
	crc INTEGER NOT NULL,         -- CRC-32C of exactly the bytes sent
	id  TEXT    NOT NULL,
	PRIMARY KEY (ino, birth, off)
) WITHOUT ROWID;
CREATE TABLE superseded (         -- Files that held earlier contents of a file
	ino     INTEGER NOT NULL, birth INTEGER NOT NULL,
	n       INTEGER NOT NULL,     -- counted from 0, the oldest
	file_id TEXT    NOT NULL,
	PRIMARY KEY (ino, birth, n)
) WITHOUT ROWID;
CREATE TABLE completing (         -- Uploads that may have become Files: it is not known
	upload_id TEXT    NOT NULL PRIMARY KEY,
	filename  TEXT    NOT NULL, purpose TEXT NOT NULL, declared INTEGER NOT NULL,
	since     INTEGER NOT NULL    -- when the Upload was created, ns
) WITHOUT ROWID;
CREATE TABLE disowned (           -- Files whose file is gone: the result of no other
	file_id TEXT    NOT NULL PRIMARY KEY,
	since   INTEGER NOT NULL      -- ns
) WITHOUT ROWID;`

// migrations[v] makes a journal of version v one of version v+1. What an older
// program did not record is not known.
var migrations = map[int]string{
	1: `
ALTER TABLE files ADD COLUMN ctime INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files ADD COLUMN boot TEXT NOT NULL DEFAULT '';
ALTER TABLE files ADD COLUMN durable_size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files ADD COLUMN durable_mtime INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files ADD COLUMN durable_ctime INTEGER NOT NULL DEFAULT 0;`,
	2: `
ALTER TABLE files ADD COLUMN temporary INTEGER NOT NULL DEFAULT 0;`,
	3: `
CREATE TABLE superseded (
	ino     INTEGER NOT NULL, birth INTEGER NOT NULL,
	n       INTEGER NOT NULL,
	file_id TEXT    NOT NULL,
	PRIMARY KEY (ino, birth, n)
) WITHOUT ROWID;
INSERT INTO superseded SELECT ino, birth, key, value FROM files, json_each(files.superseded) WHERE type = 'text';
ALTER TABLE files DROP COLUMN superseded;`,
}

// prepare makes the schema, or checks that the one there is ours and whole.
func (j *Journal) prepare(fresh bool) error {
	var found int
	if err := j.write.QueryRow("PRAGMA user_version").Scan(&found); err != nil {
		return damaged(err)
	}
	switch {
	case found > version:
		return fmt.Errorf("it is of version %d and this program knows %d: use the newer uploadfs that wrote it", found, version)
	case found == 0 && !fresh:
		// Made, but its first transaction never ended: there is nothing in it.
		var n int
		if err := j.write.QueryRow("SELECT count(*) FROM sqlite_master").Scan(&n); err != nil {
			return damaged(err)
		}
		if n > 0 {
			return damaged(errors.New("it is a database of something else"))
		}
		fresh = true
	case found == 0:
		fresh = true
	}
	if fresh {
		// Only now: it writes to the file, and stays with it.
		if _, err := j.write.Exec("PRAGMA journal_mode = WAL"); err != nil {
			return err
		}
		_, err := j.write.Exec(fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;", schema, version))
		return err
	}
	var check string
	if err := j.write.QueryRow("PRAGMA quick_check(1)").Scan(&check); err != nil || check != "ok" {
		return damaged(errors.Join(err, errors.New(check)))
	}
	for ; found < version; found++ {
		// One version after the other, each whole or not at all.
		_, err := j.write.Exec(fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;", migrations[found], found+1))
		if err != nil {
			return fmt.Errorf("from version %d to %d: %w", found, found+1, err)
		}
		j.log.Info("journal brought to a later version", "version", found+1)
	}
	forgotten := time.Now().Add(-disownedFor).UnixNano()
	_, err := j.write.Exec(`DELETE FROM disowned WHERE since < ?1; DELETE FROM completing WHERE since < ?1`, forgotten)
	return err
}

func damaged(err error) error {
	return fmt.Errorf("it is damaged (%s): nothing was touched; move it away to have every file of the tree kept as interrupted", api.OneLine(err))
}
