package journal

import (
	"database/sql"
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
)

// Name is the base name of the database in the state directory.
const Name = "journal.db"

// disownedFor is how long the Files of removed files, and Uploads that
// are not asked about any more, are remembered: longer than a File is looked for.
const disownedFor = 30 * 24 * time.Hour

// Journal is the durable memory of the sessions: SQLite with a write-ahead log.
// Every commit survives a killed daemon and none waits for the disk; a power cut
// may take the last ones, never the database. All methods may be called
// concurrently.
type Journal struct {
	write *sql.DB // the writer's
	read  *sql.DB // readers never wait for the writer (WAL)
	check *sql.DB // the syncer's: a checkpoint waits for the disk, and a writer must not wait for it
	log   *slog.Logger

	writer  writer
	reader  reader
	walName string // of the write-ahead log

	writes  atomic.Int64 // since Open
	longest int          // the write-ahead log may become, in pages, before writers have to wait

	syncing sync.WaitGroup // the syncer, started by Open and ended by Close
	wake    chan struct{}
}

// Open opens or makes the journal in dir. It touches nothing when the
// journal is damaged or of a later version.
func Open(dir string, log *slog.Logger) (*Journal, error) {
	name := filepath.Join(dir, Name)
	_, err := os.Stat(name)
	fresh := errors.Is(err, fs.ErrNotExist)
	// Checkpoints sync the disk, so they are made by the syncer and never
	// by a commit that a write is waiting for.
	dsn := "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(name) +
		"?_pragma=busy_timeout(10000)&_pragma=synchronous(NORMAL)&_pragma=wal_autocheckpoint(0)"
	j := &Journal{log: log, walName: name + "-wal", longest: walPages, wake: make(chan struct{}, 1)}
	// A transaction that reads first could not begin to write after another
	// process has written meanwhile, so it is a writer from its start.
	if j.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return nil, fmt.Errorf("journal %s: %w", name, err)
	}
	j.write.SetMaxOpenConns(1)
	j.writer = writer{db: j.write, prepared: map[string]*sql.Stmt{}}
	if err := j.prepare(fresh); err != nil {
		j.write.Close()
		return nil, fmt.Errorf("journal %s: %w", name, err)
	}
	if j.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		j.write.Close()
		return nil, fmt.Errorf("journal %s: %w", name, err)
	}
	j.read.SetMaxOpenConns(4)
	j.reader.db = j.read
	if j.check, err = sql.Open("sqlite", dsn); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", name, err), j.read.Close(), j.write.Close())
	}
	j.check.SetMaxOpenConns(1)
	j.syncing.Go(j.syncer)
	return j, nil
}

// Close ends the syncer after a last checkpoint and closes the database.
func (j *Journal) Close() error {
	close(j.wake)
	j.syncing.Wait()
	return errors.Join(j.check.Close(), j.read.Close(), j.write.Close())
}

// exec is a change of one step.
func (j *Journal) exec(query string, args ...any) error {
	return j.change(step{query, args})
}

// change makes all of the steps or none.
func (j *Journal) change(steps ...step) error {
	if err := j.writer.make(steps...); err != nil {
		return failure(err)
	}
	if j.writes.Add(1)%walWrites == 0 {
		j.Sync()
	}
	return nil
}

// failure gives a full disk its errno, so that the writer whom it stops
// hears of it as a local disk would say it.
func failure(err error) error {
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
