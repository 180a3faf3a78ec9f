package main

import (
	"context"
	"errors"
	"fmt"
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

It reads extended attributes only: if you may read the files, you may wait.`,
		Args: takes(1, -1, "name the files to wait for"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if timeout < 0 {
				return usage(cmd, fmt.Errorf("timeout %s: give a time like 30s, or 0 for none", timeout))
			}
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			var errs []error
			for _, path := range args {
				errs = append(errs, waitFor(ctx, path))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this time (default: never)")
	return cmd
}

// waitFor returns nil when the File exists. It reads the status once more after the
// end of ctx.
func waitFor(ctx context.Context, path string) error {
	for pause := firstPoll; ; pause = min(2*pause, maxPoll) {
		st, err := readStatus(path)
		if err != nil {
			return err
		}
		done, err := waitResult(path, st)
		if done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not completed in time, still %s", mount.Printable(path), stateWithReason(st))
		case <-time.After(pause):
		}
	}
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
