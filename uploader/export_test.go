package uploader

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// ClockSkew is by how much the API's clock may be behind ours.
const ClockSkew = clockSkew

// CommitsPerSlot is how many files are on their way for each slot.
const CommitsPerSlot = commitsPerSlot

// Sessions is how many sessions are in the table.
func (u *Uploader) Sessions() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sessions)
}

// AwaitSessions waits until the table has n sessions, or ctx ends.
func (u *Uploader) AwaitSessions(ctx context.Context, n int) bool {
	for {
		u.mu.Lock()
		changed, now := u.changed, len(u.sessions)
		u.mu.Unlock()
		if now == n {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// Recorded is the state of a file in the journal, "" if it has none, and whether
// it is recorded as open.
func (u *Uploader) Recorded(key backing.Key) (state state.State, open bool, err error) {
	r, err := u.journal.Get(key)
	if r == nil || err != nil {
		return "", false, err
	}
	return r.State, r.Open, nil
}

// Completing reports whether the journal says that Complete was called for the
// file and its answer is not known.
func (u *Uploader) Completing(key backing.Key) bool {
	r, err := u.journal.Get(key)
	return err == nil && r != nil && r.Completing
}

// Committing reports whether a commit of the file is under way or queued.
func (u *Uploader) Committing(key backing.Key) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sessions[key]
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits.running
}

// AgeUploads makes the journal in dir say that every Upload has expired. No
// Uploader has it open.
func AgeUploads(dir string) error { return Alter(dir, `UPDATE files SET expires_at = 1`) }

// RefuseRecords makes every change of a file's record fail, in the journal in dir.
func RefuseRecords(dir string) error {
	return Alter(dir, `CREATE TRIGGER refuse BEFORE INSERT ON files BEGIN SELECT RAISE(FAIL, 'refused by a test'); END`)
}

// AcceptRecords ends what RefuseRecords began.
func AcceptRecords(dir string) error { return Alter(dir, `DROP TRIGGER refuse`) }

// Alter runs a statement in the journal in dir, through a connection of its own.
func Alter(dir, query string) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, journal.Name)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	_, err = db.Exec(query)
	return errors.Join(err, db.Close())
}
