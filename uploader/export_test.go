package uploader

import (
	"context"
	"errors"
	"log/slog"

	"uploadfs/uploader/backing"
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
func (u *Uploader) Recorded(key backing.Key) (state State, open bool, err error) {
	r, err := u.journal.get(key)
	if r == nil || err != nil {
		return "", false, err
	}
	return r.state, r.open, nil
}

// Completing reports whether the journal says that Complete was called for the
// file and its answer is not known.
func (u *Uploader) Completing(key backing.Key) bool {
	r, err := u.journal.get(key)
	return err == nil && r != nil && r.completing
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
	return s.running != nil
}

// RefuseRecords makes every change of the journal fail, and Accept ends that.
func (u *Uploader) RefuseRecords() error { return u.pragma("PRAGMA query_only = 1") }

// AcceptRecords ends RefuseRecords.
func (u *Uploader) AcceptRecords() error { return u.pragma("PRAGMA query_only = 0") }

func (u *Uploader) pragma(query string) error {
	_, err := u.journal.write.Exec(query)
	return err
}

// AgeUploads makes the journal in dir say that every Upload has expired.
func AgeUploads(dir string) error {
	j, err := openJournal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	err = j.exec(`UPDATE files SET expires_at = 1`)
	return errors.Join(err, j.close())
}
