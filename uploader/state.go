package uploader

import (
	"fmt"
	"time"
)

// State is where a file stands. People read it in the extended attribute
// `state`; the journal keeps it across crashes.
type State string

const (
	StateEmpty       State = "empty"       // no content: the API has no empty Uploads
	StateHeld        State = "held"        // an unfinished file's name; sent when renamed or after --hold-for
	StateExcluded    State = "excluded"    // a name that is never sent
	StateWriting     State = "writing"     // open and changed, not committed
	StateUploading   State = "uploading"   // a commit is under way or queued
	StateRetrying    State = "retrying"    // the same, and the last attempt met an outage
	StateCompleted   State = "completed"   // the File exists
	StateInterrupted State = "interrupted" // its writer did not finish; kept, not sent by itself
	StateFailed      State = "failed"      // a refusal that will not pass by itself
)

// States are all states, in the order in which people are shown them.
var States = []State{StateWriting, StateUploading, StateRetrying, StateFailed, StateInterrupted, StateHeld, StateExcluded, StateCompleted, StateEmpty}

// moves is the one table of legal moves between states. A state is never left
// for itself; everything not listed is a mistake in this package.
//
// The first changed byte leads to Writing from anywhere. From Writing a close
// leads on: to Uploading, to Held or Excluded by name, to Empty without
// content, to Interrupted when the writer was killed, to Failed when a write
// failed or the content is larger than the API takes.
var moves = map[State][]State{
	StateEmpty:       {StateWriting},
	StateWriting:     {StateUploading, StateHeld, StateExcluded, StateEmpty, StateInterrupted, StateFailed},
	StateUploading:   {StateWriting, StateRetrying, StateCompleted, StateFailed, StateHeld, StateExcluded, StateEmpty, StateInterrupted},
	StateRetrying:    {StateWriting, StateUploading, StateCompleted, StateFailed, StateHeld, StateExcluded, StateEmpty, StateInterrupted},
	StateCompleted:   {StateWriting},
	StateHeld:        {StateWriting, StateUploading, StateExcluded, StateFailed},
	StateExcluded:    {StateWriting, StateUploading, StateHeld, StateFailed},
	StateInterrupted: {StateWriting, StateUploading, StateHeld, StateExcluded, StateEmpty, StateFailed},
	StateFailed:      {StateWriting, StateUploading, StateHeld, StateExcluded, StateEmpty, StateInterrupted},
}

// may reports whether the move from one state to another is legal.
func (from State) may(to State) bool {
	for _, s := range moves[from] {
		if s == to {
			return true
		}
	}
	return false
}

// committing reports whether a commit of the content is under way or queued.
func (s State) committing() bool { return s == StateUploading || s == StateRetrying }

// Pending reports whether work is left that ends by itself: what unmount waits
// for, and names when it does not end in time.
func (s State) Pending() bool {
	switch s {
	case StateWriting, StateUploading, StateRetrying, StateHeld:
		return true
	}
	return false
}

// Status is what is known of one file at one moment. It is immutable: xattrs,
// `status` and `info` read the last one published and never wait.
type Status struct {
	Path        string    `json:"path"` // below the mount
	State       State     `json:"state"`
	Size        int64     `json:"size"` // bytes
	Filename    string    `json:"filename,omitempty"`
	Purpose     string    `json:"purpose,omitempty"`   // as sent with the current Upload
	MimeType    string    `json:"mime_type,omitempty"` // the same
	UploadID    string    `json:"upload_id,omitempty"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"` // of the Upload
	PartIDs     []string  `json:"part_ids,omitempty"`  // acknowledged, in file order
	Acked       int       `json:"parts_acknowledged"`
	Total       int       `json:"parts_total"`
	BytesSent   int64     `json:"bytes_sent"` // of acknowledged parts
	FileID      string    `json:"file_id,omitempty"`
	MD5         string    `json:"md5,omitempty"`
	Error       string    `json:"error,omitempty"` // one line; failed, retrying, interrupted
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	Superseded  []string  `json:"superseded,omitempty"` // IDs of Files that held earlier content; they still exist
	Since       time.Time `json:"since,omitzero"`       // of the state

	parts []string // IDs by part number, "" where not acknowledged
}

// PartAt is the ID of part n of the file, counted from 0; "" while there is none.
func (s *Status) PartAt(n int) string {
	if n < 0 || n >= len(s.parts) {
		return ""
	}
	return s.parts[n]
}

// Progress is acknowledged/total, or "" while there is no Upload.
func (s *Status) Progress() string {
	if s.UploadID == "" {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.Acked, s.Total)
}

// Snapshot is what `status` shows of a whole mount.
type Snapshot struct {
	Counts   map[State]int `json:"counts"`
	Files    []*Status     `json:"files"` // all that are neither completed nor empty, by path
	Parallel int           `json:"parallel"`
	InFlight int           `json:"in_flight"` // API calls under way
}
