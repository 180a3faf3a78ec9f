// Package state names where a file stands, and holds the one table of legal moves.
package state

// State is where a file stands. People read it in the extended attribute
// `state`; the journal keeps it across crashes.
type State string

const (
	Empty       State = "empty"       // no content: the API has no empty Uploads
	Held        State = "held"        // an unfinished file's name; sent when renamed or after --hold-for
	Excluded    State = "excluded"    // a name that is never sent
	Writing     State = "writing"     // open and changed, not committed
	Uploading   State = "uploading"   // a commit is under way or queued
	Retrying    State = "retrying"    // the same, and the last attempt met an outage
	Completed   State = "completed"   // the File exists
	Interrupted State = "interrupted" // its writer did not finish; kept, not sent by itself
	Failed      State = "failed"      // a refusal that will not pass by itself
)

// All are all states, in the order in which people are shown them.
var All = []State{Writing, Uploading, Retrying, Failed, Interrupted, Held, Excluded, Completed, Empty}

// moves is the one table of legal moves between states. A state is never left
// for itself; everything not listed is a mistake in this package.
//
// The first changed byte leads to Writing from anywhere. From Writing a close
// leads on: to Uploading, to Held or Excluded by name, to Empty without
// content, to Interrupted when the writer was killed, to Failed when a write
// failed or the content is larger than the API takes.
var moves = map[State][]State{
	Empty:       {Writing},
	Writing:     {Uploading, Held, Excluded, Empty, Interrupted, Failed},
	Uploading:   {Writing, Retrying, Completed, Failed, Held, Excluded, Empty, Interrupted},
	Retrying:    {Writing, Uploading, Completed, Failed, Held, Excluded, Empty, Interrupted},
	Completed:   {Writing},
	Held:        {Writing, Uploading, Excluded, Failed, Interrupted},
	Excluded:    {Writing, Uploading, Held, Failed, Interrupted},
	Interrupted: {Writing, Uploading, Held, Excluded, Empty, Failed},
	Failed:      {Writing, Uploading, Held, Excluded, Empty, Interrupted},
}

// CanBecome reports whether the move from one state to another is legal.
func (from State) CanBecome(to State) bool {
	for _, s := range moves[from] {
		if s == to {
			return true
		}
	}
	return false
}

// Committing reports whether a commit of the content is under way or queued.
func (s State) Committing() bool { return s == Uploading || s == Retrying }

// Kept reports whether the file stays as it is until the user or a program does
// something about it.
func (s State) Kept() bool { return s == Failed || s == Interrupted }

// Pending reports whether work is left that ends by itself: what unmount waits
// for, and names when it does not end in time.
func (s State) Pending() bool {
	switch s {
	case Writing, Uploading, Retrying, Held:
		return true
	}
	return false
}
