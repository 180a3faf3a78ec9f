package uploader

import (
	"context"
	"fmt"
	"io"
	"path"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// A mount compares the journal with the tree and goes on where the last daemon
// stopped. It decides by what the journal was told before the effect:
//
//   - A file whose last close had been seen is sent, if its content is still that of
//     the close. Parts that the API has and that still equal the file are not sent
//     again.
//   - A file that was open and changed, or whose content is not the one that was
//     completed, is interrupted: whether it is whole cannot be told.
//   - A file that the journal does not know was made behind the mount, or the
//     last records were lost with the power: interrupted too.
//   - A file that a program still writes to is watched until it has gone.
//
// In which order and when, is in recovery.go.

// found is a file of the tree, under one of its names.
type found struct {
	path string
	info backing.Info
}

// sameFile reports whether f is the file of the record, whose key it has. Where the
// filesystem keeps no birth time, the key is a number that another file may have by
// now, and the path decides.
func (u *Uploader) sameFile(r *journal.Record, f found) bool {
	if r.Key.Birth != 0 || f.path == r.Path {
		return true
	}
	info, err := u.tree.Stat(r.Path)
	return err != nil || info.Key == r.Key
}

// renamedSince reports whether the file has got another name, and not only another
// directory, since its record was written: the daemon was killed in between.
func (u *Uploader) renamedSince(r *journal.Record, f found) bool {
	if path.Base(r.Path) == path.Base(f.path) {
		return false
	}
	info, err := u.tree.Stat(r.Path)
	return err != nil || info.Key != r.Key // else it is one of several names
}

// resume goes on with one file.
func (u *Uploader) resume(r *journal.Record, f found) error {
	if r.Temporary && !u.names.staysTemporary(f.path) && u.renamedSince(r, f) {
		r.Temporary = false
	}
	known, err := u.factsOf(r, &f)
	if err != nil {
		return err
	}
	stale := r.Open || r.Path != f.path // the record is not what it was
	r.Open, r.Path = false, f.path
	d := decide(known)
	if d.compare {
		if known.sent, err = u.compareSent(r, f); err != nil {
			return err
		}
		d = decide(known)
	}
	switch {
	case d.watch:
		r.Open = true
		return u.load(r, (*session).watchOutlived)
	case d.to == state.Interrupted:
		return u.keep(r, f, d.reason)
	case d.to != "":
		r.Err, r.Kind = "", api.Transient
		u.accept(r, f.info)
		return u.load(r, func(s *session) {
			if known.writer == backing.Unknown {
				s.watchCommit()
			}
			s.carryOut(d)
		})
	case r.State == state.Failed:
		return u.load(r, nil)
	case known.sent == sentAll, r.State == state.Excluded && known.survived == backing.Yes && r.Boot != u.boot:
		u.accept(r, f.info)
		return u.journal.Put(r)
	case stale:
		return u.journal.Put(r)
	}
	return nil
}

// accept records that the file has the content of its record. Where that was not
// written under this boot, it has been read from the disk, or is recorded as there.
func (u *Uploader) accept(r *journal.Record, now backing.Info) {
	copied := r.Ctime == 0
	r.Mtime, r.Ctime = now.Mtime, now.Ctime
	switch {
	case copied:
		r.Durable = backing.Stamp{}
	case r.Boot != u.boot:
		r.Durable = now.Stamp()
	}
	r.Boot = u.boot
}

// factsOf says what a mount can know of a file without reading it. It looks at the
// file once more where a program may be writing to it.
func (u *Uploader) factsOf(r *journal.Record, f *found) (facts, error) {
	known := facts{
		event: eventMounted, state: r.State, name: u.names.classOf(f.path, r.Temporary),
		lost: r.Kind == api.Damaged, completing: r.Completing, wasOpen: r.Open, writer: backing.No,
	}
	copied := r.Ctime == 0
	if u.mayHaveWriter(r) {
		if err := u.lookForWriter(&known, r, f); err != nil {
			return known, err
		}
		if known.writer == backing.Unknown && (copied || r.Boot != u.boot) {
			known.writer = backing.No // no program of another boot is left, or has this copy open
		}
	}
	now := f.info
	known.size = now.Size
	known.sameSize = r.Size == now.Size
	known.survived = survived(r.Boot == u.boot)
	switch {
	case copied:
		known.sameMtime = backing.Is(sameMtime(r.Mtime, now.Mtime))
		if r.Mtime == 0 {
			known.sameMtime = backing.Unknown
		}
		if r.State == state.Completed || r.Mtime == 0 {
			known.survived = backing.Unknown // nothing tells but its content
		} else if r.Durable.Size == now.Size && r.Durable.Mtime != 0 && sameMtime(r.Durable.Mtime, now.Mtime) {
			known.survived = backing.Yes
		}
	case r.Durable == now.Stamp():
		// The times of the close may have been lost with the power, when they were
		// set after the content was on the disk.
		known.survived, known.sameMtime, known.sameCtime = backing.Yes, backing.Yes, backing.Yes
	case r.Durable != (backing.Stamp{}) && r.Stamp() == now.Stamp():
		known.survived, known.sameMtime, known.sameCtime = backing.Yes, backing.Yes, backing.Yes
	default:
		known.sameMtime = backing.Is(r.Mtime == now.Mtime)
		known.sameCtime = backing.Is(r.Ctime == now.Ctime)
	}
	return known, nil
}

// survived is what the boot under which a content was written says of it.
func survived(thisBoot bool) backing.Tristate {
	if thisBoot {
		return backing.Yes
	}
	return backing.Unknown
}

// sameMtime compares the mtime of a file with that of its copy: archives may keep
// whole seconds only.
func sameMtime(was, now int64) bool {
	return was == now || now%1e9 == 0 && now/1e9 == was/1e9
}

// mayHaveWriter reports whether a program that had the file open under an earlier
// mount may still write to it. One that was completed and closed had none.
func (u *Uploader) mayHaveWriter(r *journal.Record) bool {
	switch r.State {
	case state.Completed, state.Empty:
		return r.Open
	case state.Interrupted:
		return false // it is asked when the user wants to send it
	}
	return true
}

// lookForWriter finds out whether a program can still write to the file, and what the
// file is after that.
func (u *Uploader) lookForWriter(known *facts, r *journal.Record, f *found) error {
	file, err := u.tree.OpenKey(r.Key, f.path)
	if err != nil {
		known.writer = backing.Unknown
		return nil // it has vanished, or may not be read: its commit meets that again
	}
	defer file.Close()
	known.writer = backing.HasWriter(file)
	if f.info, err = backing.StatFd(int(file.Fd())); err != nil {
		return fmt.Errorf("backing tree: %s: %w", f.path, err)
	}
	return nil
}

// compareSent compares a file with the CRCs of the parts that the API has of it. Where
// the last close was of another content than these parts, a power cut may have brought
// their content back. So they prove the whole only from Complete on: before the call,
// all of them have been compared with the content of the close.
func (u *Uploader) compareSent(r *journal.Record, f found) (sentFact, error) {
	if r.Upload.ID == "" {
		return sentNothing, nil // the parts are of an earlier content
	}
	parts, err := u.journal.Parts(r.Key)
	if err != nil || len(parts) == 0 {
		return sentNothing, err
	}
	file, err := u.tree.OpenKey(r.Key, f.path)
	if err != nil {
		return sentNothing, u.unreadable(f.path, err)
	}
	defer file.Close()
	sent, err := compareParts(u.ctx, file, parts, r.Size)
	if sent == sentAll && r.State != state.Completed && !r.Completing {
		sent = sentSome
	}
	return sent, u.unreadable(f.path, err)
}

// unreadable logs why a file cannot be compared. One that cannot be read must not keep
// the others from being mounted.
func (u *Uploader) unreadable(path string, err error) error {
	if err == nil || u.ctx.Err() != nil {
		return err
	}
	u.log.Warn("cannot be compared with what was sent", "path", path, "error", err)
	return nil
}

// compareParts compares a file of size bytes with parts.
func compareParts(ctx context.Context, file io.ReaderAt, parts []journal.Part, size int64) (sentFact, error) {
	if len(parts) == 0 {
		return sentNothing, nil
	}
	if same, err := partsMatch(ctx, file, parts); err != nil || !same {
		return sentDiffers, err
	}
	end := int64(0)
	for _, p := range parts {
		if p.Off != end {
			return sentSome, nil
		}
		end = p.Off + p.Len
	}
	if end != size {
		return sentSome, nil
	}
	return sentAll, nil
}

// compareCopy compares the local copy of a File with what was sent.
func (u *Uploader) compareCopy(r *journal.Record) error {
	s, err := u.refKey(r.Key, r.Path)
	if err != nil {
		return err
	}
	defer u.unref(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	same := func() bool { return s.rec.State == state.Completed && s.rec.FileID == r.FileID && !s.unlinked }
	if !same() {
		return nil
	}
	if err := s.openFile(); err != nil {
		return err
	}
	defer s.closeFile()
	parts, size, file, gen := s.rec.Parts, s.rec.Size, s.file.f, s.content.gen
	before, err := s.stat()
	if err != nil {
		return err
	}
	var sent sentFact
	s.unlocked(func() { sent, err = compareParts(u.ctx, file, parts, size) })
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	now, statErr := s.stat()
	switch {
	case statErr != nil:
		return statErr
	case !same() || s.content.gen != gen || now.Mtime != before.Mtime || now.Size != before.Size:
		return nil // it has another content now, of which its close speaks
	case sent == sentAll && err == nil:
		u.accept(&s.rec, now)
		s.save()
		return nil
	}
	// What cannot be read is as damaged as what differs.
	u.log.Warn("local copy damaged", "path", s.rec.Path, "file", s.rec.FileID, "error", err)
	if err := u.dropResult(&s.rec); err != nil {
		return err
	}
	s.rec.State = state.Writing
	s.content.gen++
	s.interrupt(reasonDamaged)
	return nil
}

// keep makes a file interrupted that has no session.
func (u *Uploader) keep(r *journal.Record, f found, reason string) error {
	if err := u.dropResult(r); err != nil {
		return err
	}
	u.interrupted(r, f, reason)
	if err := u.journal.Put(r); err != nil {
		return err
	}
	return u.reportKept(r)
}

// reportKept tells Options.Ended of interrupted files that have no session.
func (u *Uploader) reportKept(records ...*journal.Record) error {
	if u.opts.Ended == nil {
		return nil
	}
	for _, r := range records {
		if err := u.journal.LoadLists(r); err != nil {
			return err
		}
		u.opts.Ended(u.recorded(r, time.Now()))
	}
	return nil
}

// interrupted makes the record, which is of another state, one of an interrupted file.
// An earlier mount left it so.
func (u *Uploader) interrupted(r *journal.Record, f found, reason string) {
	r.Path, r.Open, r.Size = f.path, false, f.info.Size
	r.State, r.Since = state.Interrupted, time.Now()
	cause := interruption(reason)
	r.Err, r.Kind = api.OneLine(cause), cause.Kind
	u.log.Warn("interrupted", "path", r.Path, "why", reason)
}

// keep makes the file interrupted, whatever it was. mu is held.
func (s *session) keep(reason string) {
	if !s.rec.State.CanBecome(state.Interrupted) {
		s.rec.State = state.Writing // it has been written to, by us or behind the mount
	}
	s.interrupt(reason)
}

// dropResult takes out of the record what became of an earlier content, and is not of
// what is here now.
func (u *Uploader) dropResult(r *journal.Record) error {
	if r.FileID == "" && !r.Completing {
		return nil
	}
	if r.FileID != "" {
		r.Supersede(r.FileID)
	}
	r.FileID, r.MD5, r.Completing = "", "", false
	r.ForgetUpload()
	return u.journal.DropParts(r.Key)
}

// load makes the session of a record, with the transfer that its Upload can still take
// up, and lets then do the rest. It stays in the table while it has work.
func (u *Uploader) load(r *journal.Record, then func(*session)) error {
	if err := u.journal.LoadLists(r); err != nil { // of thousands that wait for their turn, few have any
		return err
	}
	s := u.refLoaded(r)
	defer u.unref(s)
	defer s.mu.Unlock()
	if then != nil {
		then(s)
	}
	return nil
}

// refLoaded puts the session of a record into the table, as refKey does. Its mutex is
// held, so that its state is not seen before it is decided.
func (u *Uploader) refLoaded(r *journal.Record) *session {
	s := newSession(u, r.Key)
	s.mu.Lock() // before Uploader.mu: no other goroutine has the session
	s.takeIn(r)
	s.publish()
	u.mu.Lock()
	defer u.mu.Unlock()
	s.refs++
	u.sessions[r.Key] = s
	return s
}

// takeIn makes the session of a file of which nothing is known but its record. mu is
// held.
func (s *session) takeIn(r *journal.Record) {
	s.rec = *r
	s.content.size = r.Size
	switch r.State {
	case state.Completed, state.Empty:
		return
	}
	s.resumed, s.leftFailed = true, r.State.Kept() && !s.u.troubled.has(r.Key)
	if r.State == state.Failed && r.Kind == api.Damaged {
		// Which bytes are missing is forgotten, so only a file that is
		// written anew from its start is known to be whole.
		s.lost.addAll(s.standingError())
	}
	s.reuse()
}

// reuse takes up the Upload of the record where it has not expired, or may have
// been completed: what the API has acknowledged counts if it still equals the
// file. mu is held.
func (s *session) reuse() {
	r := &s.rec
	if !reusable(r, s.content.size) {
		return
	}
	x := s.newTransfer(r.Spec.Bytes)
	x.declared(r.Spec, r.Upload, r.CreatedAt)
	x.resumed(r.Parts, s.u.chunk)
}

// reusable reports whether the Upload of the record can take a content of size bytes.
func reusable(r *journal.Record, size int64) bool {
	expired := time.Now().After(r.Upload.ExpiresAt) && !r.Completing
	return r.Upload.ID != "" && r.Spec.Bytes == size && !expired
}
