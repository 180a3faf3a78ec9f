package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/put"
	"uploadfs/uploader/state"
)

// stdinArg is the argument that names standard input.
const stdinArg = "-"

// jobs makes the jobs of a put. It checks every file before a byte of any is sent.
func (c *putConfig) jobs(cmd *cobra.Command, args []string) ([]*put.Job, error) {
	l := &jobList{config: c, cmd: cmd, names: map[inode]string{}}
	for _, arg := range args {
		if arg == stdinArg {
			l.jobs = append(l.jobs, c.job(arg)) // its size is known once it is spooled
			continue
		}
		fi, err := os.Stat(arg)
		switch {
		case err != nil:
			l.errs = append(l.errs, err)
		case fi.IsDir() && c.recursive:
			l.addTree(arg)
		default:
			l.add(arg, fi)
		}
	}
	return l.jobs, errors.Join(l.errs...)
}

// jobList is the jobs of the arguments so far.
type jobList struct {
	config *putConfig
	cmd    *cobra.Command
	jobs   []*put.Job
	errs   []error
	names  map[inode]string // of the files
}

// inode is what a file is, whatever it is called.
type inode struct{ dev, ino uint64 }

// add checks a file and makes its job.
func (l *jobList) add(path string, fi fs.FileInfo) {
	j := l.config.job(path)
	err := warnOf(l.cmd, j, fi)
	if other := l.nameOf(path, fi); err == nil && other != path {
		err = fmt.Errorf("%s and %s are the same file: put them one after the other", mount.Printable(other), mount.Printable(path))
	}
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	l.jobs = append(l.jobs, j)
}

// nameOf is the first path by which the file was named.
func (l *jobList) nameOf(path string, fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return path
	}
	key := inode{uint64(st.Dev), st.Ino}
	if other, named := l.names[key]; named {
		return other
	}
	l.names[key] = path
	return path
}

// job is the job of one argument.
func (c *putConfig) job(arg string) *put.Job {
	j := &put.Job{Name: arg, Path: arg, Spec: c.spec, Again: c.again}
	if j.Spec.Filename == "" {
		j.Spec.Filename = filepath.Base(arg)
	}
	j.Check = func(fi fs.FileInfo) error {
		_, err := preflight(fi, jobName(j), j.Spec)
		return err
	}
	return j
}

// warnOf checks a job's file and prints its warnings.
func warnOf(cmd *cobra.Command, j *put.Job, fi fs.FileInfo) error {
	warnings, err := preflight(fi, jobName(j), j.Spec)
	for _, w := range warnings {
		warn(cmd, "%s", w)
	}
	return err
}

// wholeFile is standard input where that is a regular file from its first byte on, else
// nil: it can be read again, and its size is known.
func wholeFile(in io.Reader) *os.File {
	f, ok := in.(*os.File)
	if !ok {
		return nil
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != 0 {
		return nil
	}
	return f
}

// takeStdin makes standard input what a job reads, and checks it.
func takeStdin(ctx context.Context, cmd *cobra.Command, j *put.Job, dir *put.Dir) error {
	if j.File = wholeFile(cmd.InOrStdin()); j.File == nil {
		return spoolStdin(ctx, cmd, j, dir)
	}
	fi, err := j.File.Stat()
	if err != nil {
		return err
	}
	return warnOf(cmd, j, fi)
}

// spoolStdin copies standard input, and checks the copy.
func spoolStdin(ctx context.Context, cmd *cobra.Command, j *put.Job, dir *put.Dir) error {
	if err := j.Spool(ctx, dir, cmd.InOrStdin()); err != nil {
		return fmt.Errorf("%s: %w", jobName(j), err)
	}
	fi, err := os.Stat(j.Path)
	if err == nil {
		err = warnOf(cmd, j, fi)
	}
	if err != nil {
		return errors.Join(err, os.Remove(j.Path)) // no later put can use it
	}
	return nil
}

// jobName is what messages call a job's file.
func jobName(j *put.Job) string {
	if j.Name == stdinArg {
		return "standard input"
	}
	return j.Name
}

// failedStatus is the JSON of a job that failed with err.
func failedStatus(j *put.Job, err error) *uploader.Status {
	st := j.Status()
	switch {
	case st == nil:
		st = &uploader.Status{Path: j.Name, State: state.Failed}
	case st.State != state.Failed:
		st.State = state.Interrupted
	}
	st.Error = err.Error()
	return st
}

// putFailure says why the file was not uploaded, and what to do about it. result and
// err are from [put.Job.Wait].
func putFailure(j *put.Job, result *uploader.Status, err error) error {
	if errors.Is(err, context.Canceled) {
		err = errors.New("stopped")
	}
	if st := j.Status(); st != nil && st.State == state.Retrying && st.Error != "" {
		err = fmt.Errorf("%w; the last attempt: %s", err, st.Error)
	}
	if st := j.Status(); st != nil && st.Acked > 0 && st.State != state.Failed {
		err = fmt.Errorf("%w; the API has %s parts, and the same command goes on from there until %s",
			err, st.PartsDone(), st.ExpiresAt.Local().Format("15:04"))
	}
	if j.Name == stdinArg && j.File == nil && result == nil {
		err = fmt.Errorf("%w; what was read is kept: give %s instead of - to go on", err, mount.Printable(j.Path))
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return err // it names the file
	}
	return fmt.Errorf("%s: %w", mount.Printable(jobName(j)), err)
}
