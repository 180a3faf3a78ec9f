package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// checked are the states that --check looks at.
var checked = []state.State{state.Failed, state.Interrupted, state.Uploading, state.Retrying}

// runCheck names each file that needs attention.
func (c *statusConfig) runCheck(cmd *cobra.Command, args []string) error {
	q := uploader.Query{States: checked, Limit: pageLimit}
	list, err := reports(cmd.Context(), args, []uploader.Query{q})
	now, found := time.Now(), 0
	for _, reps := range list {
		n, failed := c.checkMount(cmd, &reps[0], q, now)
		found += n
		err = errors.Join(err, failed)
	}
	if found > 0 {
		err = errors.Join(err, fmt.Errorf("%d of the files need attention: see uploadfs info FILE, then uploadfs retry FILE", found))
	}
	return err
}

// checkMount names the files of a mount, page by page.
func (c *statusConfig) checkMount(cmd *cobra.Command, r *mount.Report, q uploader.Query, now time.Time) (found int, err error) {
	for {
		for _, f := range r.Files {
			if line := c.complaint(f, now); line != "" {
				found++
				path := mount.Printable(filepath.Join(r.MountPoint, f.Path))
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", path, mount.Printable(line)); err != nil {
					return found, err
				}
			}
		}
		if r.Next == "" {
			return found, nil
		}
		q.After = r.Next
		next, err := reports(cmd.Context(), []string{r.MountPoint}, []uploader.Query{q})
		if err != nil {
			return found, err
		}
		r = &next[0][0]
	}
}

// complaint says what is wrong with a file, "" if nothing.
func (c *statusConfig) complaint(f *uploader.Status, now time.Time) string {
	switch age := now.Sub(f.Pending); {
	case f.State.Kept():
		return stateWithReason(f)
	case !f.Pending.IsZero() && c.maxAge > 0 && age > c.maxAge:
		return fmt.Sprintf("%s for %s", stateWithReason(f), age.Round(time.Second))
	}
	return ""
}
