package uploader

import (
	"fmt"

	"golang.org/x/sys/unix"

	"uploadfs/uploader/api"
	"uploadfs/uploader/state"
)

// event is something after which it must be decided what becomes of a file.
type event int

const (
	// eventClosed is a close that speaks of a content of which none has spoken yet.
	eventClosed event = iota
	// eventRenamed is a new name, or the end of the last writer.
	eventRenamed
	// eventDue is the end of the time for which a held file waits for its final name.
	eventDue
	// eventRetried is the user's wish.
	eventRetried
	// eventMounted is a mount that finds the record of an earlier one.
	eventMounted
)

// facts are what a decision depends on, and all that it depends on.
type facts struct {
	event   event
	state   state.State
	name    nameClass
	size    int64 // bytes
	writers int   // open handles that may change the file

	lost       bool // bytes of a failed write are missing
	diskFull   bool // a write may have failed of which only its program has heard
	completing bool // Complete was called, and its outcome is not known

	// changed says, of eventMounted, that the content is not that of which the record speaks.
	changed bool
	// wasOpen says, of eventMounted, that a writer had the file open when the daemon ended.
	wasOpen bool
}

// decision is what becomes of the file: the state that it gets, and why.
type decision struct {
	to     state.State // "": it stays as it is
	reason string      // of an interrupted file
	err    error       // what the caller hears; nil where the decision is what was asked for
}

// Reasons of interrupted files.
const (
	reasonNotClosed = "its writer did not close it before the last daemon ended"
	reasonChanged   = "its content changed while it was not mounted"
	reasonNoRecord  = "found in the tree without a record of it"
	reasonDiskFull  = "the disk is full, and only the program has heard of a write that failed"
)

// decide is the one place that says what a close, a rename, a retry and a restart
// mean for a file.
func decide(f facts) decision {
	switch f.event {
	case eventClosed:
		switch {
		case f.size == 0:
			return decision{to: state.Empty}
		case f.diskFull:
			return decision{to: state.Interrupted, reason: reasonDiskFull, err: api.LocalError("close", unix.ENOSPC)}
		}
		return byName(f)
	case eventRenamed:
		if f.writers > 0 || f.state != state.Held && f.state != state.Excluded {
			return decision{} // a close will decide, or has decided
		}
		return unlessSame(f, byName(f))
	case eventDue:
		if f.state != state.Held || f.writers > 0 {
			return decision{}
		}
		return upload(f)
	case eventRetried:
		return decideRetry(f)
	default:
		return decideMounted(f)
	}
}

func decideRetry(f facts) decision {
	switch f.state {
	case state.Held:
		return upload(f)
	case state.Failed, state.Interrupted:
		switch {
		case f.lost:
			return decision{err: fmt.Errorf("bytes of it are missing after a failed write: write the file anew")}
		case f.size == 0:
			return decision{to: state.Empty}
		case f.name == nameExcluded:
			return decision{to: state.Excluded, err: fmt.Errorf("its name is excluded: rename it, or mount without that --exclude")}
		}
		return upload(f)
	case state.Uploading, state.Retrying:
		return decision{} // that is what it is doing
	}
	return decision{err: fmt.Errorf("the file is %s: there is nothing to try again", f.state)}
}

func decideMounted(f facts) decision {
	switch f.state {
	case state.Interrupted:
		return decision{}
	case state.Writing:
		return decision{to: state.Interrupted, reason: reasonNotClosed}
	case state.Empty:
		if f.size > 0 || f.wasOpen {
			return decision{to: state.Interrupted, reason: reasonNotClosed}
		}
		return decision{}
	case state.Failed:
		if f.lost {
			return decision{}
		}
	}
	if f.changed {
		return decision{to: state.Interrupted, reason: reasonChanged}
	}
	switch f.state {
	case state.Completed:
		return decision{}
	case state.Excluded:
		return unlessSame(f, byName(f))
	case state.Held:
		return byName(f)
	}
	if f.name == nameExcluded && !f.completing {
		return decision{to: state.Excluded}
	}
	return upload(f)
}

// byName is what the name says.
func byName(f facts) decision {
	switch f.name {
	case nameExcluded:
		return decision{to: state.Excluded}
	case nameHeld:
		return decision{to: state.Held}
	}
	return upload(f)
}

// upload is what becomes of a file that is to be sent.
func upload(f facts) decision {
	if f.size > api.MaxUpload {
		return decision{to: state.Failed, err: &api.Error{Op: "close", Kind: api.TooLarge,
			Message: "larger than 8 GiB, which is the most that an Upload can hold; the file stays here"}}
	}
	return decision{to: state.Uploading}
}

// unlessSame leaves a file alone that is in the decided state already.
func unlessSame(f facts, d decision) decision {
	if d.to == f.state {
		return decision{}
	}
	return d
}
