package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/state"
)

// putter is what all jobs of a put share.
type putter struct {
	dir   *putDir
	up    *uploader.Uploader
	meter *meter
	board *board
}

// putJob is one file of a put.
type putJob struct {
	arg   string // as given
	path  string // what is read: arg, or the copy of standard input
	spec  api.Spec
	stdin bool

	put     atomic.Pointer[uploader.Put] // once it is being sent
	resumed *uploader.Status             // what an earlier put had sent; set before put
	done    chan struct{}                // closed when the following are set
	result  *uploader.Status
	err     error
}

// jobs looks at every file before a byte of any is sent.
func (c *putConfig) jobs(cmd *cobra.Command, args []string) ([]*putJob, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]string{}
	var jobs []*putJob
	var errs []error
	for _, arg := range args {
		j := &putJob{arg: arg, path: arg, spec: c.spec, stdin: arg == "-", done: make(chan struct{})}
		jobs = append(jobs, j)
		if j.stdin {
			continue // nothing is known of it before it is read
		}
		if j.spec.Filename == "" {
			j.spec.Filename = filepath.Base(arg)
		}
		fi, err := os.Stat(arg)
		if err == nil {
			err = j.preflight(cmd, fi)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			key := inode{uint64(st.Dev), st.Ino}
			if other, twice := seen[key]; twice {
				errs = append(errs, fmt.Errorf("%s and %s are the same file: put them one after the other",
					mount.Printable(other), mount.Printable(arg)))
			}
			seen[key] = arg
		}
	}
	return jobs, errors.Join(errs...)
}

func (j *putJob) preflight(cmd *cobra.Command, fi fs.FileInfo) error {
	warnings, err := preflight(fi, j.name(), j.spec)
	for _, w := range warnings {
		warn(cmd, "%s", w)
	}
	return err
}

// name is what people call the file.
func (j *putJob) name() string {
	if j.stdin {
		return "standard input"
	}
	return j.arg
}

// prepare reads standard input to its end, if that is what the job is about.
func (j *putJob) prepare(ctx context.Context, cmd *cobra.Command, dir *putDir) error {
	if !j.stdin {
		return nil
	}
	var err error
	if j.path, err = dir.spool(ctx, cmd.InOrStdin()); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	fi, err := os.Stat(j.path)
	if err == nil {
		err = j.preflight(cmd, fi)
	}
	if err != nil {
		return errors.Join(err, os.Remove(j.path)) // nothing can become of it
	}
	return nil
}

// run sends the file and closes done.
func (j *putJob) run(ctx context.Context, p *putter) {
	defer close(j.done)
	if ctx.Err() != nil {
		j.err = context.Cause(ctx)
		return
	}
	if j.result, j.err = j.send(ctx, p); j.err == nil && j.stdin {
		j.result.Path = j.arg
		j.err = os.Remove(j.path)
	}
}

func (j *putJob) send(ctx context.Context, p *putter) (*uploader.Status, error) {
	f, err := os.Open(j.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := preflight(fi, j.name(), j.spec); err != nil {
		return nil, err // it was another a moment ago
	}
	unlock, err := p.dir.lockFile(fi)
	if err != nil {
		return nil, err
	}
	defer unlock()
	put, err := p.up.OpenPut(f, j.spec)
	if err != nil {
		return nil, err
	}
	defer put.Close()
	j.resumed = put.Status()
	j.put.Store(put)
	p.board.begin(j, p.meter)
	st, err := put.Run(ctx)
	p.board.end(j, st)
	return st, err
}

// forget lets the next put of the same file be another upload.
func (j *putJob) forget() error { return j.put.Load().Forget() }

// sent is how many of the file's bytes the API has, or is being sent.
func (j *putJob) sent(m *meter) int64 {
	st := j.put.Load().Status()
	n := m.sent(st.UploadID)
	if st.UploadID == j.resumed.UploadID {
		n += j.resumed.BytesSent
	}
	return min(n, st.Size)
}

// status is the result for a program.
func (j *putJob) status() *uploader.Status {
	if j.err == nil {
		return j.result
	}
	st := uploader.Status{Path: j.arg, State: state.Failed}
	if put := j.put.Load(); put != nil {
		st = *put.Status()
		st.Path = j.arg
	}
	if st.State != state.Failed {
		st.State = state.Interrupted
	}
	st.Error = j.failure().Error()
	return &st
}

// failure says why the file was not uploaded, and what to do about it.
func (j *putJob) failure() error {
	err := j.err
	if errors.Is(err, context.Canceled) {
		err = errors.New("stopped")
	}
	if put := j.put.Load(); put != nil {
		if st := put.Status(); st.Acked > 0 && st.State != state.Failed {
			err = fmt.Errorf("%w; the API has %s parts, and the same command goes on from there until %s",
				err, st.Progress(), st.ExpiresAt.Local().Format("15:04"))
		}
	}
	if j.stdin && j.result == nil {
		err = fmt.Errorf("%w; what was read is kept: give %s instead of - to go on", err, mount.Printable(j.path))
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return err // it names the file
	}
	return fmt.Errorf("%s: %w", mount.Printable(j.name()), err)
}
