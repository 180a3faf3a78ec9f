package uploader

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// session is one backing file's life from its first write to completed, under
// whatever names. It is in memory while it has a writer or work. What must survive
// is in rec and in the journal.
//
// Its parts are small types of their own under the one mutex. What stands here
// ties them together.
type session struct {
	u      *Uploader
	key    backing.Key
	status atomic.Pointer[Status] // the last one published; readers never lock
	refs   int                    // calls that use the session now; Uploader.mu guards it

	mu   sync.Mutex // guards everything below; never held during a Backend call
	cond *sync.Cond // on mu: something that a commit waits for has moved on

	rec        journal.Record
	pending    time.Time // since when the file has been uploading or retrying, in this mount
	writers    int       // open handles that may change the file
	resumed    bool      // an earlier mount left it, and it has had no writer of this one
	leftFailed bool      // an earlier mount left it failed or interrupted, and nothing has asked for it since
	unlinked   bool      // it has no name left: nothing of it is sent any more
	unrecorded bool      // the journal has an older record than rec, as on a full disk
	put        *api.Spec // what a file without a tree is declared as; else nil

	file       backingFile // its descriptor, while something uses it
	observer   observer    // how changes become known: the variant of the write path
	content    content     // which bytes there are, and when they changed
	lost       lostRanges  // bytes that a failed write has left missing
	prediction prediction  // the size that the file will have
	digest     digest      // the MD5, in file order
	commits    commits     // what the closes have asked for, and which wait
	settling   settling    // the pause between a close and its commit
	xfer       *transfer   // the Upload that the content goes to; nil while there is none
	job        *job        // the commits' place in the schedule, with a lock of its own
	flow       flow        // the rate at which it is sent, the same

	deferTimer *time.Timer // sends a held file that is not renamed in time
}

func newSession(u *Uploader, key backing.Key) *session {
	s := &session{
		u: u, key: key,
		rec:        journal.Record{Key: key, State: state.Empty, Since: time.Now()},
		content:    content{block: u.block},
		digest:     digest{block: u.chunk},
		prediction: prediction{chunk: u.chunk},
		commits:    commits{waiters: map[*waiter]bool{}},
		settling:   settling{pause: u.settle, limit: u.names.HoldFor},
		job:        u.schedule.job(),
	}
	s.prediction.reset()
	s.observer = told{s}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// unlocked runs f without the mutex, which the caller holds. What the caller knew
// before may be different afterwards.
func (s *session) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// openFile makes s.file usable until closeFile. mu is held.
func (s *session) openFile() error {
	return s.file.acquire(func() (*os.File, error) {
		if s.u.tree == nil {
			return nil, api.LocalError("open", fs.ErrClosed) // a put that was closed before its commit began
		}
		f, err := s.u.tree.OpenKey(s.key, s.rec.Path)
		if err != nil {
			return nil, api.LocalError("open", err)
		}
		return f, nil
	})
}

// stat describes the backing file. mu is held.
func (s *session) stat() (backing.Info, error) {
	if s.file.isOpen() {
		return backing.StatFd(s.file.fd())
	}
	if s.u.tree == nil {
		return backing.Info{}, fs.ErrNotExist
	}
	info, err := s.u.tree.Stat(s.rec.Path)
	if err == nil && info.Key != s.key {
		err = fs.ErrNotExist
	}
	return info, err
}

// adoptFile is openFile for a caller that has the file open. mu is held.
func (s *session) adoptFile(f *os.File) error {
	return s.file.acquire(func() (*os.File, error) { return duplicate(f) })
}

// closeFile ends a use of s.file. mu is held.
func (s *session) closeFile() {
	if !s.file.release() || s.u.ctx.Err() != nil {
		return
	}
	// This may have been the last thing that kept the session in the table,
	// whose lock comes before ours.
	s.u.wg.Go(func() {
		s.u.ref(s)
		s.u.unref(s)
	})
}

// move brings the session into another state, for the reason cause (nil where
// the state needs none), and into the journal before it is published. mu is held.
func (s *session) move(to state.State, cause error, also ...journal.Also) {
	from := s.rec.State
	if from != to {
		if !from.CanBecome(to) {
			s.u.log.Error("illegal change of state", "path", s.rec.Path, "from", from, "to", to)
		}
		s.rec.State, s.rec.Since = to, time.Now()
	}
	s.rec.Err, s.rec.Kind = api.OneLine(cause), api.Transient
	if cause != nil {
		s.rec.Kind = api.KindOf(cause)
	}
	s.u.troubled.note(s.key, to, s.leftFailed)
	s.save(also...)
	s.publish()
	if from != to && s.u.opts.Ended != nil && !s.unlinked && (to == state.Completed || to == state.Failed || to == state.Interrupted) {
		s.u.opts.Ended(s.status.Load())
	}
}

// save writes the record to the journal, and with it what also says. A failure is only
// logged: the effect that the record protects has happened at the API. To forget it costs
// sending again, not the content. mu is held.
func (s *session) save(also ...journal.Also) {
	if s.unlinked {
		return
	}
	err := s.u.journal.Put(&s.rec, also...)
	s.unrecorded = err != nil
	s.recorded(err)
}

// recorded logs an error of the journal. mu is held.
func (s *session) recorded(err error) {
	if err != nil {
		s.u.log.Error("not recorded", "path", s.rec.Path, "state", s.rec.State, "error", err)
	}
}

// publish makes what is known now the status that is read from now on. mu is held.
func (s *session) publish() {
	st := s.u.statusOf(&s.rec, s.xfer, s.commits.nextAttempt)
	st.live.calls, st.live.flow = &s.job.calls, &s.flow
	if s.xfer != nil {
		st.Parts = s.xfer.letters(s.current)
	}
	if !s.rec.State.Committing() {
		s.pending = time.Time{}
	} else if s.pending.IsZero() {
		s.pending = s.rec.Since
	}
	st.Pending, st.unlinked = s.pending, s.unlinked
	s.status.Store(st)
}

// change is called before every change of content. The first one since the last
// commit takes its results away and tells the journal. If that fails, the change
// must not happen. mu is held.
func (s *session) change() error {
	if s.changeRecorded() {
		return nil
	}
	if s.u.ctx.Err() != nil {
		return context.Cause(s.u.ctx) // the journal cannot be told
	}
	before := s.rec
	s.startRevision()
	if err := s.u.journal.Put(&s.rec); err != nil {
		s.rec = before
		return err
	}
	s.syncRecord(before.Durable)
	s.publish()
	return nil
}

// syncRecord has the record of a change brought to the disk soon where durable bytes
// are about to be overwritten: a power cut must not take the record and leave the
// bytes.
func (s *session) syncRecord(durable backing.Stamp) {
	if durable != (backing.Stamp{}) {
		s.u.journal.Sync()
	}
}

// changed is change for what has happened already, or what a program has been
// told of as done. The journal has the file as open, so a crash leaves it
// interrupted even if the journal cannot be told now. mu is held.
func (s *session) changed() {
	if s.changeRecorded() || s.u.ctx.Err() != nil {
		return
	}
	durable := s.rec.Durable
	s.startRevision()
	s.save()
	s.syncRecord(durable)
	s.publish()
}

// changeRecorded reports whether the journal knows of a change already, or need
// not know. mu is held.
func (s *session) changeRecorded() bool {
	return s.unlinked || s.rec.State == state.Writing || s.lost.any()
}

// startRevision records the old File as superseded and clears the last commit's
// results. mu is held.
func (s *session) startRevision() {
	s.stopDeferring()
	s.leftFailed = false
	if !s.commits.running || s.rec.FileID != "" {
		// While a commit is under way, a change is an edit of its content,
		// and the parts that do not change still serve.
		s.content.startRevision()
		s.prediction.reset()
		s.observer.startRevision(s.content.size)
	}
	if s.rec.FileID != "" {
		s.rec.Supersede(s.rec.FileID)
		s.rec.FileID, s.rec.MD5 = "", ""
	}
	s.rec.Durable = backing.Stamp{}
	if s.xfer == nil {
		s.rec.ForgetUpload()
	}
	if s.rec.Completing && !s.commits.running && s.xfer != nil {
		s.xfer.end(errors.New("it may be a File already")) // it may take no more parts
	}
	s.rec.Completing = false // whatever comes of it is not this content's
	s.rec.State, s.rec.Since = state.Writing, time.Now()
	s.rec.Err, s.rec.Kind = "", api.Transient
}

// requestCommit is what a close asks for the content as it is now. It returns the
// generation to wait for, or that the answer is known already. mu is held.
func (s *session) requestCommit() (gen uint64, answered bool, err error) {
	s.observer.poll()
	gen = s.content.gen
	s.rec.Size = s.content.size
	switch {
	case s.unlinked:
		return gen, true, nil
	case s.lost.any():
		return gen, true, s.lost.err
	case s.u.ctx.Err() != nil:
		return gen, true, context.Cause(s.u.ctx)
	case !s.uncommitted():
		// Where no commit is under way in this state, one may be winding
		// down, but it has no answer to give.
		return gen, !s.rec.State.Committing(), s.standingError()
	}
	s.recordClose()
	d := s.decide(eventClosed)
	s.carryOut(d)
	return gen, d.to != state.Uploading, d.err
}

// recordClose makes the content as it is now the one that the record speaks of: the
// next mount goes on with this content and no other. mu is held.
func (s *session) recordClose() {
	s.rec.Size, s.rec.Mtime, s.rec.Ctime = s.content.size, 0, 0
	if now, ok := s.observer.stamp(); ok {
		s.rec.Mtime, s.rec.Ctime = now.Mtime, now.Ctime
	}
	s.rec.Boot, s.rec.Durable = s.u.boot, backing.Stamp{}
}

// nameClass says what the file's name, or the open that made it, means for its
// sending. mu is held.
func (s *session) nameClass() nameClass { return s.u.names.classOf(s.rec.Path, s.rec.Temporary) }

// decide asks what event means for the file as it is now. mu is held.
func (s *session) decide(e event) decision {
	f := facts{
		event: e, state: s.rec.State, name: s.nameClass(),
		size: s.content.size, writers: s.writers,
		declared: s.rec.Upload.ID != "" || s.rec.Completing,
		lost:     s.lost.any() || s.rec.State == state.Failed && s.rec.Kind == api.Damaged, completing: s.rec.Completing,
		settling: s.settlesNow(),
		survived: survived(s.rec.Boot == s.u.boot),
	}
	f.diskFull = e == eventClosed && s.observer.diskFull()
	return decide(f)
}

// carryOut does what was decided of the content as it is now. mu is held.
func (s *session) carryOut(d decision) {
	if d.withdraw {
		s.withdraw(errHeldBack)
	}
	if d.to == "" {
		if d.withdraw {
			s.answer(s.commits.requested, nil)
		}
		return
	}
	s.commits.requested, s.commits.next = s.content.gen, nil
	if d.to != state.Uploading {
		s.settling.reset()
		s.forgetCommit()
	}
	switch d.to {
	case state.Uploading:
		s.requestUpload(d.settle)
	case state.Interrupted:
		s.interrupt(d.reason)
	case state.Held:
		s.finishLocally(state.Held, nil)
		s.deferUpload()
	case state.Empty, state.Excluded:
		s.withdraw(errors.New(string(d.to)))
		s.finishLocally(d.to, nil)
	default:
		s.finishLocally(d.to, d.err)
	}
	s.syncLater()
}

// withdraw stops what is being committed. A close that waits for it has nothing to
// wait for any more; the caller answers it. mu is held.
func (s *session) withdraw(why error) {
	s.commits.next = nil
	s.settling.reset()
	if t := s.commits.target; t != nil {
		t.withdrawn = true
	}
	s.dropTransfer(why)
}

// finishLocally ends a content without the API: nothing of it is to be sent now.
// mu is held.
func (s *session) finishLocally(to state.State, cause error) {
	s.content.clearWritten()
	s.move(to, cause)
	s.answerRest(cause)
}

// interrupt marks the content as unfinished. It is kept and named, and sent only
// when the user says so. mu is held.
func (s *session) interrupt(reason string) {
	s.commits.requested, s.commits.next = s.content.gen, nil
	s.settling.reset()
	s.rec.Size = s.content.size
	cause := interruption(reason)
	s.move(state.Interrupted, cause)
	s.answerRest(cause)
}

// interruption is the error of content that is unfinished for this reason.
func interruption(reason string) *api.Error {
	return &api.Error{Kind: api.Interrupted, Message: reason + "; `uploadfs retry` sends it as it is"}
}

// standingError is the error that holds for the content as it is: of failed and
// interrupted ones. mu is held.
func (s *session) standingError() error {
	if s.lost.any() {
		return s.lost.err
	}
	if s.rec.State == state.Failed || s.rec.State == state.Interrupted {
		return &api.Error{Kind: s.rec.Kind, UploadID: s.rec.Upload.ID, Message: s.rec.Err}
	}
	return nil
}

// uncommitted reports whether there is content of which no close has spoken. mu
// is held.
func (s *session) uncommitted() bool { return s.content.gen != s.commits.requested }

// deferUpload starts the time for which a held file waits for its final name,
// counted from its last close. mu is held.
func (s *session) deferUpload() {
	if s.writers > 0 {
		return
	}
	s.stopDeferring()
	s.deferTimer = time.AfterFunc(s.u.names.HoldFor, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sendDeferred()
	})
}

// sendAsNamed carries out what was decided about a file that is sent under the name that
// it has. A temporary file is one like any other from then on. mu is held.
func (s *session) sendAsNamed(d decision) {
	if d.to == state.Uploading {
		s.rec.Temporary = false // recorded with the state
	}
	s.carryOut(d)
}

// stopDeferring ends what deferUpload began. mu is held.
func (s *session) stopDeferring() {
	if s.deferTimer != nil {
		s.deferTimer.Stop()
		s.deferTimer = nil
	}
}

// sendDeferred sends a held file under the name it has. mu is held.
func (s *session) sendDeferred() {
	if !s.unlinked && s.u.ctx.Err() == nil {
		s.sendAsNamed(s.decide(eventDue))
	}
}

// renamed looks at the name that the file has now: a held or excluded file with a final
// name is sent, and one that settles with another name is not. mu is held.
func (s *session) renamed() {
	if !s.unlinked && s.u.ctx.Err() == nil {
		s.carryOut(s.decide(eventRenamed))
	}
}

// linked gives a file that had no name (O_TMPFILE) its life in the journal: its
// first name. mu is held.
func (s *session) linked() {
	s.unlinked = false
	s.rec.Open = s.writers > 0
	if !s.uncommitted() {
		return
	}
	s.rec.State, s.rec.Since = state.Writing, time.Now()
	switch {
	case s.lost.any():
		s.move(state.Failed, s.lost.err)
	case s.writers == 0:
		s.requestCommit()
	}
}

// lastClosed does what the last release of a file asks for, once nothing can change
// its content any more. mu is held.
func (s *session) lastClosed() {
	switch {
	case s.uncommitted() && !s.lost.any():
		s.requestCommit() // saves
		return
	case s.rec.State == state.Held || s.rec.State == state.Excluded || s.settlesNow():
		s.renamed() // it may have got another name while it was open
		if s.rec.State == state.Held {
			s.deferUpload()
		}
		if s.settlesNow() {
			s.settle()
		}
	}
	s.save()
}

// clearLost takes a range that has been written or truncated away out of what
// failed writes have left missing. mu is held.
func (s *session) clearLost(off, end int64) {
	if s.lost.clear(off, end) && s.rec.State == state.Failed {
		s.move(state.Writing, nil)
	}
}
