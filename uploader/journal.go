package uploader

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"modernc.org/sqlite" // the "sqlite" driver, pure Go
	sqlite3 "modernc.org/sqlite/lib"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
)

// journalVersion is the version of the schema. A later program migrates an
// older one; an older program refuses a later one.
const journalVersion = 1

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
	superseded TEXT NOT NULL,     -- JSON list of File IDs
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
CREATE TABLE completing (         -- Uploads of which nobody knows whether they have become Files
	upload_id TEXT    NOT NULL PRIMARY KEY,
	filename  TEXT    NOT NULL, purpose TEXT NOT NULL, declared INTEGER NOT NULL,
	since     INTEGER NOT NULL    -- when the Upload was created, ns
) WITHOUT ROWID;
CREATE TABLE disowned (           -- Files whose file is gone: the result of no other
	file_id TEXT    NOT NULL PRIMARY KEY,
	since   INTEGER NOT NULL      -- ns
) WITHOUT ROWID;`

// disownedFor is how long the Files of removed files, and Uploads that nobody
// asks about any more, are remembered: longer than anybody looks for a File.
const disownedFor = 30 * 24 * time.Hour

// walWrites is how many records go into the write-ahead log until it is brought
// to the database even if nobody asks: an outage writes many, and completes
// nothing.
const walWrites = 1000

// journal is the durable memory of the sessions: SQLite with a write-ahead log.
// Every commit survives a killed daemon and none waits for the disk; a power cut
// may take the last ones, never the database. All methods may be called
// concurrently.
type journal struct {
	write *sql.DB // one connection: SQLite has one writer
	read  *sql.DB // readers never wait for the writer (WAL)
	check *sql.DB // the syncer's: a checkpoint waits for the disk, and a writer must not wait for it
	log   *slog.Logger

	writes  atomic.Int64 // since openJournal
	longest int          // the write-ahead log may become, in pages, before writers have to wait

	syncing sync.WaitGroup // the syncer, started by openJournal and ended by close
	wake    chan struct{}
}

// record is one file's row, with its parts where a method says so.
type record struct {
	key        backing.Key
	path       string
	state      State
	since      time.Time
	open       bool
	size       int64
	mtime      int64
	spec       api.Spec // as declared; zero while there is no Upload
	upload     api.Upload
	created    time.Time
	completing bool // Complete was called for the Upload, and the outcome is not known
	fileID     string
	md5        string
	err        string
	kind       api.Kind
	superseded []string
	parts      []partRecord
}

// partRecord is an acknowledged part.
type partRecord struct {
	off, n int64
	crc    uint32
	id     string
}

// openJournal opens or makes the journal in dir. It touches nothing when the
// journal is damaged or of a later version.
func openJournal(dir string, log *slog.Logger) (*journal, error) {
	name := filepath.Join(dir, "journal.db")
	_, err := os.Stat(name)
	fresh := errors.Is(err, fs.ErrNotExist)
	// Checkpoints sync the disk, so they are made by the syncer and never
	// by a commit that somebody's write is waiting for.
	dsn := "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(name) +
		"?_pragma=busy_timeout(10000)&_pragma=synchronous(NORMAL)&_pragma=wal_autocheckpoint(0)"
	j := &journal{log: log, longest: walPages, wake: make(chan struct{}, 1)}
	// A transaction that reads first could not begin to write after another
	// process has written meanwhile, so it is a writer from its start.
	if j.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return nil, fmt.Errorf("journal %s: %w", name, err)
	}
	j.write.SetMaxOpenConns(1)
	if err := j.prepare(fresh); err != nil {
		j.write.Close()
		return nil, fmt.Errorf("journal %s: %w", name, err)
	}
	if j.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		j.write.Close()
		return nil, fmt.Errorf("journal %s: %w", name, err)
	}
	j.read.SetMaxOpenConns(4)
	if j.check, err = sql.Open("sqlite", dsn); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", name, err), j.read.Close(), j.write.Close())
	}
	j.check.SetMaxOpenConns(1)
	j.syncing.Go(j.syncer)
	return j, nil
}

// prepare makes the schema, or checks that the one there is ours and whole.
func (j *journal) prepare(fresh bool) error {
	var version int
	if err := j.write.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return damaged(err)
	}
	switch {
	case version > journalVersion:
		return fmt.Errorf("it is of version %d and this program knows %d: use the newer uploadfs that wrote it", version, journalVersion)
	case version == 0 && !fresh:
		// Made, but its first transaction never ended: there is nothing in it.
		var n int
		if err := j.write.QueryRow("SELECT count(*) FROM sqlite_master").Scan(&n); err != nil {
			return damaged(err)
		}
		if n > 0 {
			return damaged(errors.New("it is a database of something else"))
		}
		fresh = true
	case version == 0:
		fresh = true
	}
	if fresh {
		// Only now: it writes to the file, and stays with it.
		if _, err := j.write.Exec("PRAGMA journal_mode = WAL"); err != nil {
			return err
		}
		_, err := j.write.Exec(fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;", schema, journalVersion))
		return err
	}
	var check string
	if err := j.write.QueryRow("PRAGMA quick_check(1)").Scan(&check); err != nil || check != "ok" {
		return damaged(errors.Join(err, errors.New(check)))
	}
	forgotten := time.Now().Add(-disownedFor).UnixNano()
	_, err := j.write.Exec(`DELETE FROM disowned WHERE since < ?1; DELETE FROM completing WHERE since < ?1`, forgotten)
	return err
}

func damaged(err error) error {
	return fmt.Errorf("it is damaged (%s): nothing was touched; move it away to have every file of the tree kept as interrupted", api.OneLine(err))
}

// close ends the syncer after a last checkpoint and closes the database.
func (j *journal) close() error {
	close(j.wake)
	j.syncing.Wait()
	return errors.Join(j.check.Close(), j.read.Close(), j.write.Close())
}

// sync asks for the records so far to be brought to the disk soon; requests that
// come together are served together.
func (j *journal) sync() {
	select {
	case j.wake <- struct{}{}:
	default: // one is already asked for
	}
}

// walPages of 4 KiB are 32 MiB, about 2,000 records.
const walPages = 8192

// syncer owns the checkpoints. It runs until close.
func (j *journal) syncer() {
	for open := true; open; {
		_, open = <-j.wake
		if err := j.checkpoint(); err != nil {
			j.log.Error("journal not synced", "error", err)
		}
	}
}

// checkpoint brings the log to the database beside the writers. It never comes to
// the end of a log that they go on writing, and only from there would they begin
// at its start again, so a log that has become long is ended with them held up:
// little is left of it then.
func (j *journal) checkpoint() error {
	var busy, pages, done int
	err := j.check.QueryRow("PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &pages, &done)
	if err == nil && pages > j.longest {
		_, err = j.check.Exec("PRAGMA wal_checkpoint(RESTART)")
	}
	return err
}

const columns = `ino, birth, path, state, since, open, size, mtime, filename, purpose, mime_type, expires,
	declared, upload_id, created_at, expires_at, file_id, md5, error, kind, superseded`

// all columns, and whether the Upload may be a File already.
const selected = columns + `, EXISTS (SELECT 1 FROM completing WHERE completing.upload_id = files.upload_id)`

// put writes the row of r, without its parts and without completing.
func (j *journal) put(r *record) error {
	superseded, err := json.Marshal(r.superseded)
	if err != nil {
		return err
	}
	return j.exec(`INSERT OR REPLACE INTO files (`+columns+`) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		int64(r.key.Ino), r.key.Birth, r.path, string(r.state), r.since.UnixNano(), r.open, r.size, r.mtime,
		r.spec.Filename, r.spec.Purpose, r.spec.MimeType, int64(r.spec.Expires/time.Second),
		r.spec.Bytes, r.upload.ID, nanos(r.created), nanos(r.upload.ExpiresAt),
		r.fileID, r.md5, r.err, int(r.kind), string(superseded))
}

// step is one statement of a change.
type step struct {
	query string
	args  []any
}

// exec is a change of one step.
func (j *journal) exec(query string, args ...any) error {
	_, err := j.write.Exec(query, args...)
	return j.wrote(err)
}

// change makes all of the steps or none.
func (j *journal) change(steps ...step) error {
	tx, err := j.write.Begin()
	if err != nil {
		return journalError(err)
	}
	defer tx.Rollback()
	for _, s := range steps {
		if _, err := tx.Exec(s.query, s.args...); err != nil {
			return journalError(err)
		}
	}
	return j.wrote(tx.Commit())
}

// wrote counts a change, which has ended with err.
func (j *journal) wrote(err error) error {
	if err != nil {
		return journalError(err)
	}
	if j.writes.Add(1)%walWrites == 0 {
		j.sync()
	}
	return nil
}

// putPart adds an acknowledged part, in the place of earlier ones that it
// overlaps: they may have been cut differently.
func (j *journal) putPart(key backing.Key, p partRecord) error {
	return j.change(
		step{`DELETE FROM parts WHERE ino=? AND birth=? AND off<? AND off+len>?`, []any{int64(key.Ino), key.Birth, p.off + p.n, p.off}},
		step{`INSERT INTO parts (ino, birth, off, len, crc, id) VALUES (?,?,?,?,?,?)`,
			[]any{int64(key.Ino), key.Birth, p.off, p.n, int64(p.crc), p.id}})
}

// dropParts forgets the parts of a file, whose Upload has ended.
func (j *journal) dropParts(key backing.Key) error {
	return j.exec(`DELETE FROM parts WHERE ino=? AND birth=?`, int64(key.Ino), key.Birth)
}

// delete forgets a file, but not which Files were its own.
func (j *journal) delete(key backing.Key) error {
	ino, now := int64(key.Ino), time.Now().UnixNano()
	return j.change(
		step{`INSERT OR IGNORE INTO disowned SELECT file_id, ? FROM files WHERE ino=? AND birth=? AND file_id <> ''`, []any{now, ino, key.Birth}},
		step{`INSERT OR IGNORE INTO disowned SELECT value, ? FROM files, json_each(superseded) WHERE ino=? AND birth=?`, []any{now, ino, key.Birth}},
		step{`DELETE FROM files WHERE ino=? AND birth=?`, []any{ino, key.Birth}},
		step{`DELETE FROM parts WHERE ino=? AND birth=?`, []any{ino, key.Birth}})
}

// forget deletes the records whose state is older than that, with their parts.
func (j *journal) forget(before time.Time) error {
	if err := j.exec(`DELETE FROM files WHERE since < ?`, before.UnixNano()); err != nil {
		return err
	}
	return j.exec(`DELETE FROM parts WHERE NOT EXISTS (SELECT 1 FROM files WHERE files.ino = parts.ino AND files.birth = parts.birth)`)
}

// disown remembers the File of a file that is gone.
func (j *journal) disown(fileID string) error {
	return j.exec(`INSERT OR IGNORE INTO disowned VALUES (?, ?)`, fileID, time.Now().UnixNano())
}

// get returns the record of a file with its parts, nil if there is none.
func (j *journal) get(key backing.Key) (*record, error) {
	rows, err := j.read.Query(`SELECT `+selected+` FROM files WHERE ino=? AND birth=?`, int64(key.Ino), key.Birth)
	if err != nil {
		return nil, journalError(err)
	}
	found, err := scanRecords(rows)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	r := found[0]
	r.parts, err = j.parts(key)
	return r, err
}

func (j *journal) parts(key backing.Key) ([]partRecord, error) {
	rows, err := j.read.Query(`SELECT off, len, crc, id FROM parts WHERE ino=? AND birth=? ORDER BY off`, int64(key.Ino), key.Birth)
	if err != nil {
		return nil, journalError(err)
	}
	defer rows.Close()
	var parts []partRecord
	for rows.Next() {
		var p partRecord
		if err := rows.Scan(&p.off, &p.n, &p.crc, &p.id); err != nil {
			return nil, journalError(err)
		}
		parts = append(parts, p)
	}
	return parts, rows.Err()
}

// all returns every record that where selects ("" for all), without parts.
func (j *journal) all(where string, args ...any) ([]*record, error) {
	rows, err := j.read.Query(`SELECT `+selected+` FROM files `+where, args...)
	if err != nil {
		return nil, journalError(err)
	}
	return scanRecords(rows)
}

// counts returns how many files are in each state.
func (j *journal) counts() (map[State]int, error) {
	rows, err := j.read.Query(`SELECT state, count(*) FROM files GROUP BY state`)
	if err != nil {
		return nil, journalError(err)
	}
	defer rows.Close()
	counts := map[State]int{}
	for rows.Next() {
		var s string
		var n int
		if err := rows.Scan(&s, &n); err != nil {
			return nil, journalError(err)
		}
		counts[State(s)] = n
	}
	return counts, rows.Err()
}

// renamed gives the file at from, and everything below it, its new path.
func (j *journal) renamed(from, to string) error {
	// Everything below "dir/" sorts from it up to "dir0", as '0' follows '/'.
	return j.exec(`UPDATE files SET path = ?2 || substr(path, length(?1)+1)
		WHERE path = ?1 OR (path >= ?1 || '/' AND path < ?1 || '0')`, from, to)
}

// touched records that somebody set the mtime of a completed file, so that the
// next mount does not take it for a change of content.
func (j *journal) touched(key backing.Key, mtime int64) error {
	return j.exec(`UPDATE files SET mtime=? WHERE ino=? AND birth=? AND state=?`,
		mtime, int64(key.Ino), key.Birth, string(StateCompleted))
}

// completing records that Complete is called for the Upload, which was created
// then: from now on it may be a File.
func (j *journal) completing(uploadID string, spec api.Spec, created time.Time) error {
	return j.exec(`INSERT OR REPLACE INTO completing (upload_id, filename, purpose, declared, since) VALUES (?,?,?,?,?)`,
		uploadID, spec.Filename, spec.Purpose, spec.Bytes, created.UnixNano())
}

// completed records that it is known what became of the Upload.
func (j *journal) completed(uploadID string) error {
	return j.exec(`DELETE FROM completing WHERE upload_id=?`, uploadID)
}

// rivals is how many other Uploads, created since then, a File of this spec could
// have come from.
func (j *journal) rivals(uploadID string, spec api.Spec, since time.Time) (n int, err error) {
	err = j.read.QueryRow(`SELECT count(*) FROM completing WHERE upload_id <> ? AND filename=? AND purpose=? AND declared=? AND since >= ?`,
		uploadID, spec.Filename, spec.Purpose, spec.Bytes, since.UnixNano()).Scan(&n)
	if err != nil {
		return 0, journalError(err)
	}
	return n, nil
}

// claimed reports whether a File is already the result of a file of this mount,
// or was that of an earlier content, or of a file that is gone.
func (j *journal) claimed(fileID string) (bool, error) {
	quoted, err := json.Marshal(fileID)
	if err != nil {
		return false, err
	}
	var n int
	err = j.read.QueryRow(`SELECT (SELECT count(*) FROM files WHERE file_id = ?1 OR instr(superseded, ?2) > 0)
		+ (SELECT count(*) FROM disowned WHERE file_id = ?1)`, fileID, string(quoted)).Scan(&n)
	if err != nil {
		return false, journalError(err)
	}
	return n > 0, nil
}

func scanRecords(rows *sql.Rows) ([]*record, error) {
	defer rows.Close()
	var all []*record
	for rows.Next() {
		var (
			r                        record
			ino, since, created, exp int64
			life                     int64
			state, superseded        string
		)
		err := rows.Scan(&ino, &r.key.Birth, &r.path, &state, &since, &r.open, &r.size, &r.mtime,
			&r.spec.Filename, &r.spec.Purpose, &r.spec.MimeType, &life,
			&r.spec.Bytes, &r.upload.ID, &created, &exp,
			&r.fileID, &r.md5, &r.err, &r.kind, &superseded, &r.completing)
		if err != nil {
			return nil, journalError(err)
		}
		if err := json.Unmarshal([]byte(superseded), &r.superseded); err != nil {
			return nil, fmt.Errorf("journal: superseded Files of %s: %w", r.path, err)
		}
		r.key.Ino, r.state, r.since = uint64(ino), State(state), time.Unix(0, since)
		r.spec.Expires = time.Duration(life) * time.Second
		r.created, r.upload.ExpiresAt = fromNanos(created), fromNanos(exp)
		all = append(all, &r)
	}
	if err := rows.Err(); err != nil {
		return nil, journalError(err)
	}
	return all, nil
}

// journalError gives a full disk its errno, so that the writer whom it stops
// hears of it as a local disk would say it.
func journalError(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return api.LocalError("journal", errors.Join(syscall.ENOSPC, err))
		case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY:
			return api.LocalError("journal", errors.Join(syscall.EIO, err))
		}
	}
	return fmt.Errorf("journal: %w", err)
}

// nanos keeps the zero time zero.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
