package journal

import (
	"os"

	"uploadfs/uploader/api"
)

// walWrites is how many records go into the write-ahead log until it is brought
// to the database even unasked: an outage writes many, and completes
// nothing.
const walWrites = 1000

// Sync asks for the records so far to be brought to the disk soon; requests that
// come together are served together.
func (j *Journal) Sync() {
	select {
	case j.wake <- struct{}{}:
	default: // one is already asked for
	}
}

// Flush brings the records so far to the disk, and returns when they are there. A
// record is in the log until a checkpoint has brought it to the database, and that
// waits for the disk.
func (j *Journal) Flush() error {
	log, err := os.Open(j.walName)
	if err != nil {
		return api.LocalError("journal", err)
	}
	defer log.Close()
	if err := log.Sync(); err != nil {
		return api.LocalError("journal", err)
	}
	return nil
}

// walPages of 4 KiB are 32 MiB, about 2,000 records.
const walPages = 8192

// syncer owns the checkpoints. It runs until close.
func (j *Journal) syncer() {
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
func (j *Journal) checkpoint() error {
	var busy, pages, done int
	err := j.check.QueryRow("PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &pages, &done)
	if err == nil && pages > j.longest {
		err = j.writer.paused(func() error {
			_, err := j.check.Exec("PRAGMA wal_checkpoint(RESTART)")
			return err
		})
	}
	return err
}
