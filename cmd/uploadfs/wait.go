package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// How often wait reads an attribute. That costs microseconds and never waits.
const (
	firstPoll = 20 * time.Millisecond
	maxPoll   = 250 * time.Millisecond
)

func waitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait [--timeout D] PATH...",
		Short: "wait until files are completed",
		Long: `Returns with status 0 when a File exists for each PATH, and with 1 when one has
failed or was interrupted, when no File will ever exist because the file is empty
or its name excluded, or when the timeout has passed. Held files are waited for too.

A directory, or a mount point, stands for all files in it and below it that are
there when the command starts. Empty and excluded ones among them do not count, and
a summary is printed at the end.

It reads extended attributes only: if you may read the files, you may wait.`,
		Args: takes(1, -1, "name the files or directories to wait for"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			if timeout < 0 {
				return usage(cmd, fmt.Errorf("timeout %s: give a time like 30s, or 0 for none", timeout))
			}
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			var all waiting
			var errs []error
			for _, path := range args {
				errs = append(errs, all.add(path))
			}
			errs = append(errs, all.run(ctx, cmd.ErrOrStderr()))
			if all.dirs {
				fmt.Fprintln(cmd.OutOrStdout(), all.summary())
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this time (default: never)")
	return cmd
}

// waiting is what a wait waits for.
type waiting struct {
	files []*awaited
	dirs  bool // a directory is among the arguments
}

// awaited is one file of a wait.
type awaited struct {
	path  string
	below bool // it was found in a directory that was named
	last  *uploader.Status
	done  bool
	err   error
}

// add adds a file, or the files of a directory.
func (w *waiting) add(path string) error {
	if !isDir(path) {
		w.files = append(w.files, &awaited{path: path})
		return nil
	}
	w.dirs = true
	return walkFiles(path, func(path string) error {
		w.files = append(w.files, &awaited{path: path, below: true})
		return nil
	})
}

// run returns when a File exists for every file, or never will, or ctx has ended. On a
// terminal it shows the progress meanwhile.
func (w *waiting) run(ctx context.Context, terminal io.Writer) error {
	show := newWaitBar(terminal, w)
	defer show.close()
	for pause := firstPoll; ; pause = min(2*pause, maxPoll) {
		began, left := time.Now(), false
		for _, f := range w.files {
			if !f.done {
				f.poll()
				left = left || !f.done
			}
		}
		if !left {
			break
		}
		show.update()
		// Reading thousands of files takes its time, and the others' too.
		pause = max(pause, time.Since(began))
		if ctx.Err() != nil {
			for _, f := range w.files {
				f.giveUp(ctx.Err())
			}
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.err)
	}
	return errors.Join(errs...)
}

// poll reads the file's status.
func (f *awaited) poll() {
	st, err := readStatus(f.path)
	switch {
	case f.below && errors.Is(err, fs.ErrNotExist):
		f.last, f.done = &uploader.Status{}, true // removed, so no program waits for its File
	case err != nil:
		f.done, f.err = true, err
	default:
		f.last = st
		if f.done, f.err = waitResult(f.path, st); f.below && (st.State == state.Empty || st.State == state.Excluded) {
			f.err = nil
		}
	}
}

// giveUp says that the file was not completed in time.
func (f *awaited) giveUp(why error) {
	if f.done {
		return
	}
	f.done = true
	if errors.Is(why, context.DeadlineExceeded) {
		f.err = fmt.Errorf("%s: not completed in time, still %s", mount.Printable(f.path), stateWithReason(f.last))
		return
	}
	f.err = fmt.Errorf("%s: stopped, still %s; the upload goes on", mount.Printable(f.path), stateWithReason(f.last))
}

// summary says what became of the files.
func (w *waiting) summary() string {
	n, bytes, files := map[state.State]int{}, int64(0), 0
	for _, f := range w.files {
		if f.last == nil || f.last.State == "" {
			continue
		}
		files++
		n[f.last.State]++
		if f.last.State == state.Completed {
			bytes += f.last.Size
		}
	}
	return fmt.Sprintf("%d files: %s (%s completed)", files, counts(n, 0), size(bytes))
}

// waitResult says whether a state ends the wait, and with which error.
func waitResult(path string, st *uploader.Status) (done bool, err error) {
	switch {
	case st.State == state.Completed:
		return true, nil
	case st.State.Pending():
		return false, nil
	case st.State == state.Empty:
		return true, fmt.Errorf("%s: empty, and the API has no empty Files", mount.Printable(path))
	case st.State == state.Excluded:
		return true, fmt.Errorf("%s: excluded by name, and never uploaded", mount.Printable(path))
	}
	return true, fmt.Errorf("%s: %s; try again with uploadfs retry", mount.Printable(path), stateWithReason(st))
}

// stateWithReason is a state with its reason.
func stateWithReason(st *uploader.Status) string {
	if st.Error == "" {
		return string(st.State)
	}
	return fmt.Sprintf("%s: %s", st.State, st.Error)
}
