package uploader

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/stretchr/testify/require"

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

// CompareWhile compares a file with its record, and calls meanwhile when it has been
// found.
func (u *Uploader) CompareWhile(key backing.Key, meanwhile func()) error {
	c, err := u.recovery.begin(u.ctx, key)
	if c == nil || err != nil {
		return errors.Join(errors.New("compared already"), err)
	}
	r, err := u.journal.Get(key)
	if err == nil {
		f, there := u.foundAt(r, r.Path)
		meanwhile()
		if err = fs.ErrNotExist; there {
			err = u.resume(r, f)
		}
	}
	c.end(err)
	return err
}

// AwaitsRename reports whether the comparison waits for the end of a rename.
func (u *Uploader) AwaitsRename() bool {
	if u.recovery.renames.TryRLock() {
		u.recovery.renames.RUnlock()
		return false
	}
	return true
}

// Completing reports whether the journal says that Complete was called for the
// file and its answer is not known.
func (u *Uploader) Completing(key backing.Key) bool {
	r, err := u.journal.Get(key)
	return err == nil && r != nil && r.Completing
}

// AllSuperseded are the Files that the journal knows of a file's earlier contents.
func (u *Uploader) AllSuperseded(t require.TestingT, st *Status) []string {
	ids, err := u.journal.Superseded(st.key, 0, math.MaxInt)
	require.NoError(t, err)
	return ids
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

// Durable is the state in which the journal says that a file is on the disk, zero if
// it does not.
func (u *Uploader) Durable(key backing.Key) (backing.Stamp, error) {
	r, err := u.journal.Get(key)
	if r == nil || err != nil {
		return backing.Stamp{}, err
	}
	return r.Durable, nil
}

// RecordedStamp is the state of a file in the journal, and the boot of which it is.
func (u *Uploader) RecordedStamp(key backing.Key) (backing.Stamp, string, error) {
	r, err := u.journal.Get(key)
	if r == nil || err != nil {
		return backing.Stamp{}, "", err
	}
	return r.Stamp(), r.Boot, nil
}

// RecordCtime makes the journal in dir say that a file had this ctime at its last close.
func RecordCtime(dir string, key backing.Key, ctime int64) error {
	return Alter(dir, fmt.Sprintf(`UPDATE files SET ctime = %d WHERE ino = %d AND birth = %d`, ctime, int64(key.Ino), key.Birth))
}
