package uploader

import (
	"context"
	"errors"
	"math"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// ErrChanged is the error of a put whose file was written to while it was being
// sent: what the API would have got is neither what was there before nor what is
// there now.
var ErrChanged = errors.New("the file changed while it was being sent, and nothing was published: put it again when no program writes to it")

// putRemembered is how long the journal remembers a put that was neither continued nor
// asked for again.
const putRemembered = 400 * 24 * time.Hour

// Put is the upload of one file that lies where it lies, without a tree: the same
// session, journal and parts as those of a mount's file, but its content is what
// the file has when it is opened, and what it is declared as is said by the caller.
// The file is only ever read.
//
// A put that was cut off (a signal, a crash) leaves its parts in the journal. The
// next one of the same file and declaration goes on with those that still equal
// the file. A completed one leaves its File there, see [Put.Earlier]. Its methods are
// for one goroutine, but for Status.
type Put struct {
	s   *session
	gen uint64 // of the content when it was opened
}

// OpenPut prepares the upload of a regular file as spec, whose zero fields have
// defaults; its Bytes are the file's own. file is open for reading only and stays
// the caller's. The Uploader has no tree ([Options]). Two processes must not put
// one file with one journal at the same time.
func (u *Uploader) OpenPut(file *os.File, spec api.Spec) (*Put, error) {
	key, err := putKey(file)
	if err != nil {
		return nil, err
	}
	if spec.Filename == "" {
		spec.Filename = path.Base(file.Name())
	}
	if !utf8.ValidString(spec.Filename) {
		spec.Filename = strings.ToValidUTF8(spec.Filename, "\uFFFD")
	}
	if spec.Purpose == "" {
		spec.Purpose = u.opts.Purpose
	}
	if spec.MimeType == "" {
		spec.MimeType = mimeType(spec.Filename)
	}
	s, err := u.refPut(key, file.Name())
	if err != nil {
		return nil, err
	}
	p := &Put{s: s}
	s.mu.Lock()
	err = s.beginPut(file, spec)
	p.gen = s.content.gen
	s.mu.Unlock()
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// refPut is refKey for a file that no other Put has open. What is left in the table of an
// earlier put has nothing more to say.
func (u *Uploader) refPut(key backing.Key, name string) (*session, error) {
	u.mu.Lock()
	busy := u.putting[key]
	if s := u.sessions[key]; s != nil && !busy {
		s.mu.Lock()
		busy = s.commits.running // that of a put which was given up
		s.mu.Unlock()
	}
	if busy {
		u.mu.Unlock()
		return nil, api.LocalError("put", errors.New("the file is already being sent"))
	}
	u.putting[key] = true
	delete(u.sessions, key)
	u.mu.Unlock()
	s, err := u.refKey(key, name)
	if err != nil {
		u.unrefPut(key)
	}
	return s, err
}

// unrefPut says that the file is not being put any more.
func (u *Uploader) unrefPut(key backing.Key) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.putting, key)
}

// putKey is the identity of a file in a journal for files of any filesystem:
// inode numbers are unique within one only. Where the device gets another number
// (a reboot), a put is not gone on with, which costs no more than sending again.
func putKey(file *os.File) (backing.Key, error) {
	info, err := backing.StatFd(int(file.Fd()))
	if err != nil {
		return backing.Key{}, api.LocalError("stat", err)
	}
	if !info.Regular() {
		return backing.Key{}, api.LocalError("put", errors.New("not a regular file"))
	}
	key := info.Key
	if fi, err := file.Stat(); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			// Spread, so that it does not look like another time of birth.
			key.Birth ^= int64(uint64(st.Dev) * 0x9e3779b97f4a7c15 & math.MaxInt64)
		}
	}
	return key, nil
}

// beginPut takes the file in, and what the journal knows of it if that is still
// true. mu is held.
func (s *session) beginPut(file *os.File, spec api.Spec) error {
	if err := s.adoptFile(file); err != nil {
		return err
	}
	s.writers++ // it is polled as a file in passthrough is, until Close
	v, err := newPolled(s)
	if err != nil {
		return err
	}
	s.observer = v
	v.startPolling()
	info := v.seen
	spec.Bytes = info.Size
	s.put, s.content.size = &spec, info.Size
	if s.rec.State != state.Completed {
		s.reuse()
		if s.xfer != nil && (s.rec.Spec != spec || s.rec.Superseded.Count > 0) { // Run takes a superseded File for its own
			s.dropTransfer(errors.New("declared otherwise"))
		}
	}
	if s.xfer == nil && (s.rec.State != state.Completed || s.rec.Spec != spec) {
		if err := s.forgetPut(); err != nil {
			return err
		}
	}
	s.rec.Path, s.rec.Size = file.Name(), info.Size
	s.publish()
	return nil
}

// forgetPut begins a record without anything of an earlier put. mu is held.
func (s *session) forgetPut() error {
	if err := s.u.journal.Delete(s.key); err != nil {
		return err
	}
	s.rec = journal.Record{Key: s.key, Path: s.rec.Path, Size: s.rec.Size, State: state.Writing, Since: time.Now()}
	return nil
}

// Earlier returns the result of an earlier put of the same declaration whose content the
// file still has: it reads the file and compares its CRC-32C. It is nil without one.
// Whether the API still has the File, it does not say; see [Uploader.FileExists]. It is
// called before Run, or not at all.
func (p *Put) Earlier(ctx context.Context) (*Status, error) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.State != state.Completed {
		return nil, nil
	}
	earlier := s.u.statusOf(&s.rec, nil, time.Time{})
	same, err := s.completedMatches(ctx)
	if s.observer.poll(); err == nil && s.content.gen != p.gen {
		err = ErrChanged
	}
	if err != nil || !same {
		return nil, err
	}
	s.rec.Since = time.Now() // asked for again: see putRemembered
	s.save()
	return earlier, nil
}

// completedMatches compares the file with the parts that its record says it was sent
// in. mu is held, but not while it reads.
func (s *session) completedMatches(ctx context.Context) (match bool, err error) {
	parts, file := s.rec.Parts, s.file.f
	s.unlocked(func() { match, err = partsMatch(ctx, file, parts) })
	return match, err
}

// FileExists reports whether the API still has a File. An error says that it cannot be
// told, or is the cause of ctx.
func (u *Uploader) FileExists(ctx context.Context, fileID string) (bool, error) {
	checker := api.FileCheckerOf(u.opts.Backend)
	if checker == nil {
		return false, &api.Error{Kind: api.Refused, Message: "the API has no call for one File"}
	}
	return checker.FileExists(ctx, fileID)
}

// declaration is what the content is declared as: what the caller of OpenPut
// asked for, else what its name and attributes say.
func (s *session) declaration(path string, size int64) api.Spec {
	if s.put == nil {
		return s.u.spec(path, size)
	}
	return *s.put
}

// Status is how the put stands. It never waits, and may be called concurrently.
func (p *Put) Status() *Status { return p.s.status.Load().at(time.Now()) }

// Run sends the file and returns what became of it when the File exists. A File of an
// earlier put makes no difference. ctx bounds the waiting only: to give the put up, close the Uploader. An error
// other than [ErrChanged] and the cause of ctx is what the API or the disk said.
func (p *Put) Run(ctx context.Context) (*Status, error) {
	s := p.s
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cond.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.u.ctx.Err() != nil {
		return nil, context.Cause(s.u.ctx)
	}
	if s.content.gen != p.gen {
		return nil, ErrChanged
	}
	if s.rec.State == state.Completed {
		if err := s.forgetPut(); err != nil {
			return nil, err
		}
	}
	s.requestUpload(false)
	for s.commits.running && ctx.Err() == nil {
		s.cond.Wait()
	}
	done := s.u.statusOf(&s.rec, s.xfer, time.Time{})
	switch {
	case done.State == state.Completed:
		return done, nil
	case done.SupersededCount > 0:
		// It changed when all was said and done. Its record began without
		// Files, so this one is of what was sent.
		done.State, done.FileID, done.Superseded, done.SupersededCount = state.Completed, done.Superseded[0], nil, 0
		return done, nil
	case s.content.gen != p.gen:
		if s.xfer != nil {
			s.xfer.end(ErrChanged) // the Upload stays, for what still matches at the next put
		}
		return nil, ErrChanged
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case s.u.ctx.Err() != nil:
		return nil, context.Cause(s.u.ctx)
	}
	return nil, s.standingError()
}

// Forget takes the put out of the journal: the next put of the same file has no earlier
// one.
func (p *Put) Forget() error { return p.s.u.journal.Delete(p.s.key) }

// Close lets go of the file. A put that has not ended is over when the Uploader is
// closed.
func (p *Put) Close() {
	s := p.s
	defer s.u.unref(s)
	defer s.u.unrefPut(s.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writers > 0 {
		s.writers--
		s.observer.stopPolling()
		s.closeFile()
	}
}
