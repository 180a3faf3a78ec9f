package uploader

import (
	"context"
	"fmt"
	"os"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
)

// observer is how a session learns that its file has changed. In write-back each
// change comes through a [Writer], which counts it (told). In passthrough the
// kernel writes by itself, and the session has to find out (polled).
//
// The session's mutex is held in every method; those that read the file drop it
// while they do.
type observer interface {
	// poll finds out whether the content has changed since the last look.
	poll()
	// ownChange follows a change that the daemon has made and counted itself.
	ownChange()
	// epoch counts the moments from which on the content may have changed unseen.
	epoch() uint64
	// startRevision begins another content, of which size bytes are the old one's.
	startRevision(size int64)
	// mayHaveWritten reports whether the open behind w may have changed the content.
	mayHaveWritten(w *Writer) bool
	// mayMap says that an open from now on can make a mapping that stores.
	mayMap()
	// closedMapped follows a close by a program that maps the file: its next store shows.
	closedMapped()
	// metadataChanged takes in a change of metadata that the daemon has made.
	metadataChanged(before, after backing.Info)
	// stamp is the state of the content at the last look; ok is false if it is not known.
	stamp() (now backing.Stamp, ok bool)
	// diskFull reports whether a write may have failed of which the daemon did not hear.
	diskFull() bool

	// mark takes in what is known of the file at the close that t is of.
	mark(t *target)
	// whole reports whether the content of t can still be read, or is proven.
	whole(t *target) bool
	// current reports whether what p was sent with is what the commit, or the file, has there.
	current(p *part) bool
	// sent follows the answer to a part.
	sent(p *part)
	// hashed reports whether the MD5 is of t, of blocks that were read with these CRCs.
	hashed(t *target, read map[extent]uint32) bool

	// checkSize compares the file's size at the beginning of a commit.
	checkSize(info backing.Info, t *target) error
	// beginCommit makes what was sent before this moment count only after a comparison.
	beginCommit(t *target, x *transfer) error
	// rematch compares the parts of x that were sent at an earlier epoch with the file.
	rematch(x *transfer) error
	// matched reports whether the parts of x, which are current, have the content of t.
	matched(t *target, x *transfer) bool
	// recheckDigest compares what was hashed early. It is called without the mutex.
	recheckDigest(ctx context.Context, file *os.File) error
	// completed returns the state of the content that has just been completed; ok is
	// false where it is that of the close.
	completed() (now backing.Stamp, ok bool)

	// commitsEnded follows the last of the commits that were asked for.
	commitsEnded()

	// recheckCompleted compares a completed file whose times have moved with what was sent.
	recheckCompleted()
	// stopPolling ends what goes on while the file is open for writing: it is not any more.
	stopPolling()
	// writersGone follows the release of the last writer.
	writersGone()
}

// told is the observer of a session whose every change comes through a Writer.
type told struct{ s *session }

var _ observer = told{}

func (told) poll()                                         {}
func (told) ownChange()                                    {}
func (told) epoch() uint64                                 { return 0 }
func (told) startRevision(int64)                           {}
func (told) mayMap()                                       {}
func (told) closedMapped()                                 {}
func (told) metadataChanged(_, _ backing.Info)             {}
func (told) completed() (backing.Stamp, bool)              { return backing.Stamp{}, false }
func (told) diskFull() bool                                { return false } // the WRITE would have failed
func (told) mark(*target)                                  {}
func (told) sent(*part)                                    {}
func (told) beginCommit(*target, *transfer) error          { return nil }
func (told) rematch(*transfer) error                       { return nil } // generations tell
func (o told) matched(t *target, _ *transfer) bool         { return o.whole(t) }
func (o told) hashed(t *target, _ map[extent]uint32) bool  { return o.whole(t) }
func (told) recheckDigest(context.Context, *os.File) error { return nil }
func (told) commitsEnded()                                 {}
func (told) stopPolling()                                  {}
func (told) recheckCompleted()                             {}
func (o told) mayHaveWritten(w *Writer) bool               { return w.wrote.Load() }
func (o told) writersGone()                                { o.s.lastClosed() }

func (o told) whole(t *target) bool {
	return t.whole(t.gen != o.s.content.gen || t.low < t.size, true, false)
}

func (o told) current(p *part) bool {
	return !o.s.content.changedFor(o.s.commits.target, p.off, p.off+p.n, p.gen)
}

// checkSize lets the file be longer while a write is under way beyond its end.
func (o told) checkSize(info backing.Info, t *target) error {
	size := o.s.content.size
	if info.Size == size || len(o.s.content.pending) > 0 && info.Size >= t.size {
		return nil
	}
	return api.LocalError("close", fmt.Errorf("the backing file has %d bytes and should have %d", info.Size, size))
}

func (o told) stamp() (backing.Stamp, bool) {
	info, err := o.s.stat()
	return info.Stamp(), err == nil && info.Size == o.s.content.size
}
