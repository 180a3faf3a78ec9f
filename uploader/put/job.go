package put

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

// Job is one file of a put. The caller sets the exported fields before the job is
// sent. The methods may be called concurrently once it is.
type Job struct {
	Name  string                  // what the user calls the file; also the Path of its status
	Path  string                  // what is read; [Job.Spool] sets it
	File  *os.File                // is read in place of Path where it is set, and is at its end once the File exists
	Spec  api.Spec                // what the File is declared as; zero fields have defaults
	Check func(fs.FileInfo) error // checks the opened file before it is sent; nil for no check
	Again bool                    // send it although an earlier put has made a File of the same content

	spooled   bool
	unchanged bool // set before done

	put    atomic.Pointer[uploader.Put] // set once it is being sent
	done   chan struct{}                // closed when the following are set
	result *uploader.Status
	err    error
}

// Spool copies a stream to dir: the API wants the size before the first byte. The
// job then reads the copy, and removes it once the File exists. The caller
// removes the copy of a job that it does not send.
func (j *Job) Spool(ctx context.Context, dir *Dir, r io.Reader) error {
	var err error
	j.Path, err = dir.spool(ctx, r)
	j.spooled = err == nil
	return err
}

// Wait returns the result of a job that was given to [Sender.Start] when it is
// known. The error is the API's, the disk's, or the cause of the Sender's context.
// With both a result and an error, the File exists, and what was read could not be
// tidied up.
func (j *Job) Wait() (*uploader.Status, error) {
	<-j.done
	return j.result, j.err
}

// Unchanged reports whether the result is that of an earlier put: nothing was sent. It
// is for after Wait.
func (j *Job) Unchanged() bool { return j.unchanged }

// Status is how the upload stands, nil before it began. It never waits.
func (j *Job) Status() *uploader.Status {
	put := j.put.Load()
	if put == nil {
		return nil
	}
	st := *put.Status()
	st.Path = j.Name
	return &st
}

// run sends the file and closes done.
func (j *Job) run(ctx context.Context, s *Sender) {
	defer close(j.done)
	if ctx.Err() != nil {
		j.err = context.Cause(ctx)
		return
	}
	if j.result, j.err = j.send(ctx, s); j.err != nil {
		return
	}
	j.result.Path = j.Name
	if j.File != nil {
		_, j.err = j.File.Seek(0, io.SeekEnd)
	}
	if j.spooled {
		j.err = errors.Join(os.Remove(j.Path), j.put.Load().Forget())
	}
}

func (j *Job) send(ctx context.Context, s *Sender) (*uploader.Status, error) {
	f := j.File
	if f == nil {
		var err error
		if f, err = os.Open(j.Path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if j.Check != nil { // the path may have named another file a moment ago
		if err := j.Check(fi); err != nil {
			return nil, err
		}
	}
	unlock, err := s.Dir.lockSending(fi)
	if err != nil {
		return nil, err
	}
	defer unlock()
	put, err := s.Uploader.OpenPut(f, j.Spec)
	if err != nil {
		return nil, err
	}
	defer put.Close()
	if !j.Again {
		if st, err := j.earlier(ctx, s, put); st != nil || err != nil {
			return st, err
		}
	}
	defer s.Acks.expect()()
	j.put.Store(put)
	s.Observer.Begin(j)
	st, err := put.Run(ctx)
	s.Observer.End(j, st)
	return st, err
}

// earlier is the result of an earlier put that is still true, nil without one: the
// content is the same, and the API has the File.
func (j *Job) earlier(ctx context.Context, s *Sender, put *uploader.Put) (*uploader.Status, error) {
	st, err := put.Earlier(ctx)
	if st == nil || err != nil {
		return nil, err
	}
	defer s.Acks.expect()()
	exists, err := s.Uploader.FileExists(ctx, st.FileID)
	switch {
	case err != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("it was sent before, and whether %s still exists cannot be told: %w: --again sends it once more", st.FileID, err)
	case !exists:
		return nil, err
	}
	st.Path, j.unchanged = j.Name, true
	s.Observer.Unchanged(j, st)
	return st, nil
}
