package uploader

import (
	"fmt"
	"time"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// Status is what is known of one file at one moment. It is immutable: xattrs,
// `status` and `info` read the last one published and never wait.
type Status struct {
	Path            string      `json:"path"` // below the mount
	State           state.State `json:"state"`
	Size            int64       `json:"size"` // bytes
	Filename        string      `json:"filename,omitempty"`
	Purpose         string      `json:"purpose,omitempty"`   // as sent with the current Upload
	MimeType        string      `json:"mime_type,omitempty"` // the same
	UploadID        string      `json:"upload_id,omitempty"`
	ExpiresAt       time.Time   `json:"expires_at,omitzero"` // of the Upload
	PartIDs         []string    `json:"part_ids,omitempty"`  // acknowledged, in file order
	Parts           string      `json:"parts,omitempty"`     // a letter for each part in file order, see [PartWaiting]; "" where none is to be sent now
	Acked           int         `json:"parts_acknowledged"`
	Total           int         `json:"parts_total"`
	BytesSent       int64       `json:"bytes_sent"` // of acknowledged parts
	FileID          string      `json:"file_id,omitempty"`
	MD5             string      `json:"md5,omitempty"`
	Error           string      `json:"error,omitempty"` // one line; failed, retrying, interrupted
	NextAttempt     time.Time   `json:"next_attempt,omitzero"`
	Superseded      []string    `json:"superseded,omitempty"`       // IDs of the last Files that held earlier content; they still exist
	SupersededCount int         `json:"superseded_count,omitempty"` // how many there are in all
	MadeOften       bool        `json:"made_often,omitempty"`       // each close made a File, and there were many within a minute
	Since           time.Time   `json:"since,omitzero"`             // of the state
	Pending         time.Time   `json:"pending_since,omitzero"`     // when it began to wait for its upload, while it does
	Earlier         bool        `json:"earlier,omitempty"`          // failed or interrupted since before this mount
	Calls           int         `json:"calls"`                      // attempts of calls to the API that are under way for it
	Queued          bool        `json:"queued,omitempty"`           // uploading, and nothing is under way: it waits for its turn
	Progress

	key       backing.Key
	parts     []string // IDs by part number, "" where not acknowledged
	temporary bool     // it gets its final name later
	unlinked  bool     // it has no name left
	live      live
}

// at is the status with its progress at that time. What is read of a status is read of
// this.
func (s *Status) at(now time.Time) *Status {
	st := *s
	acked, rate := s.BytesSent+s.live.acknowledged(), int64(0)
	if s.live.flow != nil {
		rate, st.Calls = s.live.flow.rate(now), int(s.live.calls.Load())
	}
	st.Progress = progressOf(s.Size, acked, rate)
	st.Queued = s.State == state.Uploading && st.Calls == 0 && (s.UploadID == "" || s.Acked < s.Total)
	if st.Calls > 0 && !s.NextAttempt.After(now) {
		st.NextAttempt = time.Time{} // that is the one under way
	}
	return &st
}

// Sending reports whether the file is on its way to the API: committed, or an early
// Upload is there.
func (s *Status) Sending() bool {
	return s.State.Committing() || s.State == state.Writing && s.UploadID != ""
}

// The letters of [Status.Parts].
const (
	PartWaiting = 'w'
	PartSending = 's'
	PartAcked   = 'a'
	PartChanged = 'c' // acknowledged, and to be sent again: the file has changed there
	PartFailed  = 'f' // the last attempt failed, and there will be another one
)

// letters are the letters of the parts, of which those that are current equal the file.
func (x *transfer) letters(current func(*part) bool) string {
	letters := make([]byte, 0, len(x.parts))
	for _, p := range x.parts {
		letter := byte(PartWaiting)
		switch {
		case p.sending && p.failing:
			letter = PartFailed
		case p.sending:
			letter = PartSending
		case current(p):
			letter = PartAcked
		case p.id != "" && p.matched:
			letter = PartChanged
		case p.id != "":
			letter = PartAcked // by an earlier mount, and not compared yet
		}
		letters = append(letters, letter)
	}
	return string(letters)
}

// PartAt is the ID of part n of the file, counted from 0; "" while there is none.
func (s *Status) PartAt(n int) string {
	if n < 0 || n >= len(s.parts) {
		return ""
	}
	return s.parts[n]
}

// PartsDone is acknowledged/total parts, or "" while there is no Upload.
func (s *Status) PartsDone() string {
	if s.UploadID == "" {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.Acked, s.Total)
}

// FilesMade is how many Files were made of the file.
func (s *Status) FilesMade() int {
	n := s.SupersededCount
	if s.FileID != "" {
		n++
	}
	return n
}

// Snapshot is what `status` shows of a whole mount.
type Snapshot struct {
	Counts   map[state.State]int `json:"counts"`
	Files    []*Status           `json:"files"`          // those that the Query asks for, by path
	Matches  int                 `json:"matches"`        // how many files the Query is about, whatever its page
	Next     string              `json:"next,omitempty"` // the path after which the next page begins; "" where this is the last
	Parallel int                 `json:"parallel"`
	InFlight int                 `json:"in_flight"` // large parts under way
	Queued   int                 `json:"queued"`    // files among those that are uploading, of which nothing is under way
	Sending  Sending             `json:"sending"`

	// Comparing is there while some files stand as the last mount left them.
	Comparing *Comparing `json:"comparing,omitempty"`
}

// Sending is the sum of all files that are uploading or retrying.
type Sending struct {
	Bytes   int64     `json:"bytes"`
	Pending time.Time `json:"pending_since,omitzero"` // when the one began to wait that has waited longest
	Progress
}

// Comparing is how far the comparison of the tree with the journal has got.
type Comparing struct {
	Compared int    `json:"compared"`        // records
	Records  int    `json:"records"`         // all that there were
	Error    string `json:"error,omitempty"` // why the others are compared only when they are used
}

// Status is what is known of the file with this key, whose name is path now. It
// never waits for anything but a look into the journal, and for the comparison of the
// file with it where that has not been done since the mount.
func (u *Uploader) Status(key backing.Key, path string) *Status {
	if err := u.look(key, path); err != nil && u.ctx.Err() == nil {
		u.log.Error("not compared with its record", "path", path, "error", err)
	}
	u.mu.Lock()
	s := u.sessions[key]
	u.mu.Unlock()
	if s != nil {
		if s.mu.TryLock() { // else a new status is about to be published
			s.observer.poll()
			s.mu.Unlock()
		}
		return s.status.Load().at(time.Now())
	}
	r, err := u.journal.Get(key)
	if err != nil {
		u.log.Error("no status", "path", path, "error", err)
	}
	if r == nil {
		r = &journal.Record{Key: key, State: state.Empty}
	}
	r.Path = path
	return u.recorded(r, time.Now())
}

// recorded is the status of a file without a session.
func (u *Uploader) recorded(r *journal.Record, now time.Time) *Status {
	x := u.planned(r)
	st := u.statusOf(r, x, time.Time{})
	if x != nil {
		st.Parts = x.letters(func(*part) bool { return false })
	}
	if r.State.Committing() {
		st.Pending = r.Since // not compared yet
	}
	return st.at(now)
}

// planned is what is to be sent of a file without a session; nil if its Upload is not
// gone on with.
func (u *Uploader) planned(r *journal.Record) *transfer {
	if r.State != state.Interrupted || !reusable(r, r.Size) {
		return nil
	}
	x := &transfer{spec: r.Spec}
	x.resumed(r.Parts, u.chunk)
	return x
}

// sending is the sum of all files that are on their way, and how many of them wait for
// their turn.
func (u *Uploader) sending(now time.Time) (sum Sending, queued int) {
	var acked int64
	u.mu.Lock()
	for _, s := range u.sessions {
		st := s.status.Load()
		if !st.State.Committing() || st.unlinked {
			continue
		}
		st = st.at(now)
		sum.Bytes += st.Size
		if sum.Pending.IsZero() || st.Pending.Before(sum.Pending) {
			sum.Pending = st.Pending
		}
		acked += st.Acknowledged
		if st.Queued {
			queued++
		}
	}
	u.mu.Unlock()
	sum.Progress = progressOf(sum.Bytes, acked, u.flow.rate(now))
	return sum, queued
}

// statusOf is the record as people see it, with the parts of the transfer x where
// there is one. next is the time of the next attempt.
func (u *Uploader) statusOf(r *journal.Record, x *transfer, next time.Time) *Status {
	st := &Status{
		Path: r.Path, State: r.State, Size: r.Size, Since: r.Since,
		Filename: r.Spec.Filename, Purpose: r.Spec.Purpose, MimeType: r.Spec.MimeType,
		UploadID: r.Upload.ID, ExpiresAt: r.Upload.ExpiresAt,
		FileID: r.FileID, MD5: r.MD5, Error: r.Err, key: r.Key, temporary: r.Temporary,
		Superseded: r.Superseded.Last, SupersededCount: r.Superseded.Count,
		MadeOften: !u.opts.Background && u.madeOften.has(r.Key),
		Earlier:   r.State.Kept() && u.tree != nil && !u.troubled.has(r.Key),
	}
	if r.State == state.Retrying {
		st.NextAttempt = next
	}
	if st.UploadID == "" {
		return st
	}
	add := func(id string, n int64) {
		st.parts = append(st.parts, id)
		if id != "" {
			st.PartIDs = append(st.PartIDs, id)
			st.Acked++
			st.BytesSent += n
		}
		st.Total++
	}
	if x != nil {
		for _, p := range x.parts {
			add(p.id, p.n)
			if p.sending {
				st.live.parts = append(st.live.parts, p.acked)
			}
		}
	} else {
		for _, p := range r.Parts {
			add(p.ID, p.Len)
		}
	}
	return st
}
