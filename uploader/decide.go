package uploader

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
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
	// eventCancelled is the user's wish that nothing more is sent.
	eventCancelled
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
	declared   bool // the API has an Upload for it
	settling   bool // it is closed, and its commit has not begun

	// What follows is of eventMounted, but for survived.

	wasOpen   bool             // a writer had the file open when the daemon ended
	sameSize  bool             // as at the close of which the record speaks
	sameMtime backing.Tristate // the same; unknown where none was recorded
	sameCtime backing.Tristate // the same, or in a copied tree, where it says nothing
	sent      sentFact
	// writer says whether the file is open for writing, or mapped, since an earlier mount.
	writer backing.Tristate
	// survived says whether the content cannot have been lost with the page cache:
	// it is of this boot, or is recorded as on the disk.
	survived backing.Tristate
}

// sentFact is what a comparison of the file with the parts that the API has has shown.
type sentFact int

const (
	notCompared sentFact = iota
	sentNothing          // there are no parts to compare with
	sentDiffers
	sentSome // what was sent is the same, and there is more
	sentAll  // the whole file is what was sent
)

// decision is what becomes of the file: the state that it gets, and why.
type decision struct {
	to     state.State // "": it stays as it is
	reason string      // of an interrupted file
	err    error       // what the caller hears; nil where the decision is what was asked for

	// withdraw says that what is being committed is not sent after all.
	withdraw bool

	// settle says that the upload begins when the file has been quiet for a while.
	settle bool

	// compare says that facts.sent is needed first.
	compare bool
	// compareLater says that the file stays as it is, and is compared in the background.
	compareLater bool
	// watch says that a program still has the file open: decide again when it has gone.
	watch bool
}

// Reasons of interrupted files.
const (
	reasonNotClosed = "its writer did not close it before the last daemon ended"
	reasonChanged   = "its content changed while it was not mounted"
	reasonUnknown   = "its content at its last close is not known: an earlier version wrote the record"
	reasonOutlived  = "a program went on writing to it after the last daemon had ended"
	reasonPowerCut  = "the machine was restarted before its content was known to be on the disk"
	reasonDamaged   = "its local copy is damaged, and its File at the API is whole: the machine was restarted before the copy was known to be on the disk"
	reasonNoRecord  = "found in the tree without a record of it"
	reasonCancelled = "its upload was cancelled"
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
		return settled(byName(f))
	case eventRenamed:
		return decideRenamed(f)
	case eventDue:
		if f.state != state.Held || f.writers > 0 {
			return decision{}
		}
		return upload(f)
	case eventRetried:
		return decideRetry(f)
	case eventCancelled:
		return decideCancel(f)
	default:
		return decideMounted(f)
	}
}

// decideRenamed is what a new name means. A file that waits for the API goes by the
// name that it has when its Upload is created; from then on its name is settled.
func decideRenamed(f facts) decision {
	stops := (!f.declared || f.settling) && f.name != nameFinal
	switch {
	case stops && f.state.Committing():
		d := byName(f)
		d.withdraw = true
		return d
	case stops && f.state == state.Writing:
		return decision{withdraw: true} // and its close decides
	case f.writers > 0 || f.state != state.Held && f.state != state.Excluded:
		return decision{} // a close will decide, or has decided
	case f.survived != backing.Yes && f.name != nameExcluded:
		return decision{to: state.Interrupted, reason: reasonPowerCut}
	}
	return unlessSame(f, settled(byName(f)))
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
			return decision{to: state.Excluded, err: fmt.Errorf("its name is excluded: rename it, or mount without that --exclude (or with --no-default-excludes)")}
		}
		return upload(f)
	case state.Uploading, state.Retrying:
		return decision{} // that is what it is doing
	}
	return decision{err: fmt.Errorf("the file is %s: there is nothing to try again", f.state)}
}

// decideCancel is what the end of an upload by the user means. What Complete was called
// for may be a File, which its record has to name.
func decideCancel(f facts) decision {
	switch {
	case f.state == state.Writing:
		return decision{err: errors.New("a program is writing it: end that program, or wait for its close")}
	case f.state.Committing() && f.completing:
		return decision{err: errors.New("the API has been asked to make its File, and may have done so: wait for the answer")}
	case f.state.Committing(), f.state == state.Held:
		return decision{to: state.Interrupted, reason: reasonCancelled, withdraw: true}
	}
	return decision{err: fmt.Errorf("the file is %s: there is no upload to cancel", f.state)}
}

// decideMounted is what a restart means. What an earlier mount left goes on only with
// the exact content of the close that its record speaks of.
func decideMounted(f facts) decision {
	switch {
	case f.state == state.Interrupted, f.state == state.Failed && f.lost:
		return decision{}
	case f.writer == backing.Yes:
		return decision{watch: true}
	case f.state == state.Writing:
		return decision{to: state.Interrupted, reason: reasonNotClosed}
	case f.state == state.Empty && (f.size > 0 || f.wasOpen):
		return decision{to: state.Interrupted, reason: reasonNotClosed}
	case f.state == state.Empty:
		return decision{}
	case f.state == state.Completed:
		return decideCompleted(f)
	case f.state == state.Excluded && f.name == nameExcluded && f.sameSize && f.survived != backing.Yes:
		return decision{} // its next name decides
	}
	if d := decideContent(f); d.compare || d.to != "" {
		return d
	}
	switch f.state {
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

// decideCompleted is what a restart means for a file of which there is a File: its
// local copy may have changed, or be damaged.
func decideCompleted(f facts) decision {
	reason := reasonChanged
	if f.survived != backing.Yes {
		reason = reasonDamaged
	}
	switch {
	case !f.sameSize:
		return decision{to: state.Interrupted, reason: reason}
	case f.sameMtime == backing.Yes && f.survived == backing.Yes, f.sent == sentAll:
		return decision{}
	case f.sent != notCompared:
		return decision{to: state.Interrupted, reason: reason}
	case f.sameMtime == backing.Yes:
		return decision{compareLater: true}
	}
	return decision{compare: true}
}

// decideContent says whether a file that waits is to be compared, or is interrupted;
// nothing if it has the content of its last close.
func decideContent(f facts) decision {
	interrupted := func(reason string) decision { return decision{to: state.Interrupted, reason: reason} }
	if !f.sameSize {
		return interrupted(reasonChanged)
	}
	// What differs may still have the same content. Only the whole proves that.
	whole := func(reason string) decision {
		switch f.sent {
		case sentAll:
			return decision{}
		case notCompared:
			return decision{compare: true}
		}
		return interrupted(reason)
	}
	switch {
	case f.sameMtime == backing.Unknown:
		return whole(reasonUnknown)
	case f.survived != backing.Yes:
		return whole(reasonPowerCut)
	case f.writer == backing.Unknown && (f.sameMtime == backing.No || f.sameCtime == backing.No):
		return interrupted(reasonChanged)
	case f.sameMtime == backing.No:
		return whole(reasonChanged)
	case f.sameCtime == backing.Yes:
		return decision{}
	case f.sent == notCompared:
		return decision{compare: true}
	case f.sent == sentDiffers, f.sent == sentNothing && f.sameCtime == backing.No:
		return interrupted(reasonChanged)
	}
	return decision{}
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

// settled lets an upload begin when the file has been quiet for a while.
func settled(d decision) decision {
	d.settle = true
	return d
}

// unlessSame leaves a file alone that is in the decided state already.
func unlessSame(f facts, d decision) decision {
	if d.to == f.state {
		return decision{}
	}
	return d
}
