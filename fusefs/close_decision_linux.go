package fusefs

import "syscall"

// A FLUSH arrives at every close of every duplicate of a descriptor. decideClose says
// what one FLUSH means for the content. It is a pure function of the facts that
// [callers] gathers.

// fact answers a yes-or-no question about another program. What cannot be observed
// is unknown, and never taken for a no.
type fact int

const (
	unknown fact = iota
	no
	yes
)

func factOf(b bool) fact {
	if b {
		return yes
	}
	return no
}

// closeFacts are what is known at a FLUSH of a writable handle.
type closeFacts struct {
	dirty bool // there is content to wait for
	half  bool // an earlier writer crashed and left half a file, not written anew since

	inExec  fact // the caller is inside execve(2)
	exiting fact // the caller is in exit(2), or SIGKILL waits for it
	exit    exitFact

	// Signals and flags of an exiting caller. They only add a suspicion: other
	// programs leave them too, and none of them proves a good end.
	suspectKilled  bool // it may be ended by a signal
	suspectCrashed bool // it may be ended by one of those in crashes

	// openerGoesOn: another process opened the handle, lives, and may still write:
	// it has the file open for writing, or its descriptors cannot be read.
	openerGoesOn func() fact
	// neverExeced: the caller was forked and never called execve(2).
	neverExeced func() fact
	// holdsAnother: the caller has another writable descriptor of the file.
	holdsAnother func() fact
	// mapsIt: the caller has a shared, writable mapping of the file, and can go on
	// storing to it.
	mapsIt func() fact

	unseen UnseenWriters
}

// exitFact is what is known of the way in which an exiting caller ends.
type exitFact struct {
	known  bool
	status syscall.WaitStatus // if known
	// later: a pidfd will tell the status after the process has ended.
	later bool
}

// signaled reports whether the caller is known to be ended by a signal.
func (e exitFact) signaled() bool { return e.known && e.status.Signaled() }

// closeAction is what a FLUSH leads to.
type closeAction int

const (
	reportError     closeAction = iota // nothing has changed: return the error that stands
	sendFull                           // more is to come: send full chunks only
	commitAndWait                      // the content is whole
	commitLater                        // the content is whole, but the caller must not wait
	markInterrupted                    // the writer is killed: half a file
	markHalf                           // the same, until the file is written anew
	refuseHalf                         // an earlier writer left half a file: return its error
	awaitExit                          // decide when the caller has ended
	awaitMapping                       // decide when the caller has no mapping any more
)

func (a closeAction) String() string {
	return [...]string{"reportError", "sendFull", "commitAndWait", "commitLater",
		"markInterrupted", "markHalf", "refuseHalf", "awaitExit", "awaitMapping"}[a]
}

// decideClose decides what a FLUSH means. The order of its rules is part of them.
func decideClose(f closeFacts) closeAction {
	action := decideContent(f)
	if f.half && (action == commitAndWait || action == commitLater) {
		return refuseHalf
	}
	return action
}

func decideContent(f closeFacts) closeAction {
	if !f.dirty {
		if f.inExec != yes && f.mapsIt() == yes {
			return awaitMapping // stores may follow
		}
		return reportError
	}
	if f.inExec == yes {
		// execve(2) returns no error of a close. Until it ends, a reader of
		// the process's stat file waits, ps(1) as well as this daemon, so it
		// must not wait. If this is the last close, RELEASE commits.
		return sendFull
	}
	opener := f.openerGoesOn()
	if opener == yes {
		return decideHelper(f)
	}
	ending := f.exiting == yes || f.exiting == unknown && f.unseen == UnseenBackground
	switch {
	case f.exit.signaled():
		return markInterrupted
	case ending && !f.exit.known && f.exit.later:
		return awaitExit // an exiting caller learns no answer
	case f.exiting == yes && !f.exit.known && f.suspectKilled:
		return markInterrupted
	case f.exiting == yes && !f.exit.known, f.exiting == unknown:
		return unseenAction(f.unseen)
	case opener == unknown && f.unseen == UnseenBackground:
		return sendFull
	case f.exiting == yes && f.exit.status != 0:
		return commitLater
	case f.exiting == yes:
		return commitAndWait // it has given up its descriptors
	}
	another := f.holdsAnother()
	switch {
	case another == yes:
		return sendFull
	case f.mapsIt() == yes:
		return awaitMapping
	case another == no:
		return commitAndWait
	}
	return unseenAction(f.unseen)
}

// decideHelper is decideContent for a process that inherited the descriptor from an
// opener that goes on: the opener's close is the one that counts. Only a program
// that crashed, with the file as its output, leaves half a file.
func decideHelper(f closeFacts) closeAction {
	switch {
	case f.neverExeced() == yes:
		return sendFull // a part of the opener's program, which knows of its end
	case f.exit.signaled() && crashes(f.exit.status.Signal()):
		return markHalf
	case f.exiting != no && !f.exit.known && f.exit.later:
		return awaitExit
	case f.exiting == yes && !f.exit.known && f.suspectCrashed:
		return markHalf
	}
	return sendFull
}

// crashes reports whether a program that the signal ends has not ended as intended:
// it failed, or the system killed it. TERM, INT, HUP, PIPE and the like are how a
// helper is told to end.
func crashes(s syscall.Signal) bool {
	switch s {
	case syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE,
		syscall.SIGSYS, syscall.SIGTRAP, syscall.SIGXCPU, syscall.SIGXFSZ:
		return true
	}
	return false
}

// unseenAction is the close of a program of which too little can be observed.
func unseenAction(u UnseenWriters) closeAction {
	if u == UnseenCommit {
		return commitAndWait
	}
	return sendFull // RELEASE commits after the last close
}
