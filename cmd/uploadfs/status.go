package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"uploadfs/mount"
	"uploadfs/uploader/state"
)

// statusTimeout bounds how long status waits for one mount.
const statusTimeout = 5 * time.Second

// errSilent is the error of a mount whose daemon or source does not answer in time.
var errSilent = fmt.Errorf("no answer in %s: its daemon is stopped, or its state directory lies on a filesystem that does not answer", statusTimeout)

func statusCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status [--json] [--watch] [MOUNTPOINT]",
		Short: "show what a mount, or every mount, is doing",
		Long: `Shows a mount's counts by state, the files that are not completed, and the disk
that its local copies use. Without MOUNTPOINT, all mounts that this user can reach.
With --json, one object per mount and line.`,
		Args: takes(0, 1, "name one mount point, or none for all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !watch {
				list, err := reports(cmd.Context(), args)
				if len(list) == 0 && err != nil {
					return err
				}
				return errors.Join(printReports(cmd.OutOrStdout(), list, asJSON), err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return repeatedly(ctx, cmd.OutOrStdout(), func(ctx context.Context) error {
				list, err := reports(ctx, args)
				if len(list) == 0 && err != nil {
					return err
				}
				printError(cmd.ErrOrStderr(), err) // the other mounts go on
				return printReports(cmd.OutOrStdout(), list, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	cmd.Flags().BoolVar(&watch, "watch", false, "print again each second until Ctrl-C")
	return cmd
}

// repeatedly shows once a second until ctx ends, on a terminal in place.
func repeatedly(ctx context.Context, w io.Writer, show func(context.Context) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if isTerminal(w) {
			fmt.Fprint(w, "\x1b[H\x1b[2J") // home, clear
		}
		err := show(ctx)
		if ctx.Err() != nil {
			return nil // asked for
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

// reports asks the mount on the directory named, or all mounts that this user may
// ask. It asks all at once, each for a bounded time, so that none holds up another.
func reports(ctx context.Context, args []string) ([]mount.Report, error) {
	entries, err := named(args)
	if err != nil {
		return nil, err
	}
	found := make([]mount.Report, len(entries))
	errs := make([]error, len(entries))
	var calls sync.WaitGroup
	for i, m := range entries {
		calls.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, errSilent)
			defer cancel()
			found[i], errs[i] = mount.NewClient(m).Status(ctx)
		})
	}
	calls.Wait()
	var list []mount.Report
	for i, err := range errs {
		switch {
		case err == nil:
			list = append(list, found[i])
			continue
		case errors.Is(err, mount.ErrNoDaemon):
			err = fmt.Errorf("%w: mount again to go on, or take it away with uploadfs unmount", err)
		}
		if errs[i] = fmt.Errorf("%s: %w", mount.Printable(entries[i].Point), err); len(args) == 0 && errors.Is(err, fs.ErrPermission) {
			errs[i] = nil // another user's mount, and the caller did not name it
		}
	}
	return list, errors.Join(errs...)
}

// named finds the mount on the directory named. Without one it finds all mounts of
// this user, and for root those of all users.
func named(args []string) ([]mount.Entry, error) {
	if len(args) == 1 {
		m, err := mount.Find(args[0])
		return []mount.Entry{m}, err
	}
	all, err := mount.FindAll()
	return slices.DeleteFunc(all, func(m mount.Entry) bool {
		return os.Geteuid() != 0 && m.Owner != os.Geteuid()
	}), err
}

func printReports(w io.Writer, list []mount.Report, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for i := range list {
			if err := enc.Encode(&list[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no uploadfs mounts")
		return err
	}
	for i := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := printReport(w, &list[i], time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func printReport(w io.Writer, r *mount.Report, now time.Time) error {
	title := mount.Printable(r.MountPoint)
	if r.Paused {
		title += " (paused: nothing is sent until uploadfs resume " + mount.Printable(r.MountPoint) + ")"
	}
	if r.Ending {
		title += " (unmounted; uploading what is pending)"
	}
	fmt.Fprintln(w, title)
	t := columns(w)
	row(t, "  endpoint", r.Endpoint)
	row(t, "  state dir", r.StateDir)
	row(t, "  write path", r.WritePath)
	row(t, "  disk", fmt.Sprintf("%s used, %s free", size(r.Disk.Used), size(r.Disk.Free)))
	row(t, "  in flight", fmt.Sprintf("%d of %d", r.InFlight, r.Parallel))
	if r.Limit > 0 {
		row(t, "  limit", size(r.Limit)+"/s")
	}
	row(t, "  files", counts(r.Counts))
	if r.Page != "" {
		row(t, "  page", r.Page)
	}
	for _, note := range r.Notes {
		row(t, "  note", note)
	}
	if err := t.Flush(); err != nil || len(r.Files) == 0 {
		return err
	}
	fmt.Fprintln(w)
	row(t, "  STATE", "PARTS", "SIZE", "PATH", "REASON")
	for _, f := range r.Files {
		reason := f.Error
		if !f.NextAttempt.IsZero() {
			reason = strings.TrimPrefix(reason+"; next attempt "+when(f.NextAttempt, now), "; ")
		}
		row(t, "  "+string(f.State), f.PartsDone(), size(f.Size), f.Path, reason)
	}
	return t.Flush()
}

// counts says how many files are in which state, in the order of states.
func counts(n map[state.State]int) string {
	var list []string
	for _, s := range state.All {
		if n[s] > 0 {
			list = append(list, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
