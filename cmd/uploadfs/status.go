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
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// statusTimeout bounds how long status waits for one mount.
const statusTimeout = 5 * time.Second

// errSilent is the error of a mount whose daemon or source does not answer in time.
var errSilent = fmt.Errorf("no answer in %s: its daemon is stopped, or its state directory lies on a filesystem that does not answer", statusTimeout)

// statusConfig holds the flags of status.
type statusConfig struct {
	asJSON, watch bool
	all           bool
	state         string
	after         string
	limit         int
	check         bool
	maxAge        time.Duration
}

// pageLimit is how many files a page of JSON has by default.
const pageLimit = 1000

func statusCommand() *cobra.Command {
	c := statusConfig{limit: pageLimit, maxAge: time.Hour}
	cmd := &cobra.Command{
		Use:   "status [flags] [MOUNTPOINT]",
		Short: "show what a mount, or every mount, is doing",
		Long: `Shows first what has failed and what to do about it, then what is being sent, then
how many files are in which state. Without MOUNTPOINT, all mounts that this user can
reach. On a terminal it fits the screen; --all and --state list the files.

With --json, one object per mount and line, with up to --limit files. Where there
are more, "next" is the value of --after for the next page.

With --check, one line for each file that has failed, was interrupted, or has waited
for longer than --max-age, and exit status 1 if there is one: for cron and
monitoring.`,
		Args: takes(0, 1, "name one mount point, or none for all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.validate(cmd); err != nil {
				return err
			}
			if c.check {
				return c.runCheck(cmd, args)
			}
			w := cmd.OutOrStdout()
			if !c.watch {
				return c.show(cmd.Context(), w, args)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return repeatedly(ctx, w, func(ctx context.Context, w io.Writer) error { return c.show(ctx, w, args) })
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&c.asJSON, "json", false, "print JSON, one object per mount and line")
	f.BoolVar(&c.watch, "watch", false, "print again each second until Ctrl-C, on a terminal in place")
	f.BoolVar(&c.all, "all", false, "list all files that are neither completed nor empty; with --state all of that state")
	f.StringVar(&c.state, "state", "", "list files in this `STATE` only, queued and sending among them")
	f.IntVar(&c.limit, "limit", c.limit, "with --json: at most `N` files")
	f.StringVar(&c.after, "after", "", "with --json: only files after this `PATH`")
	f.BoolVar(&c.check, "check", false, "name what needs attention, and fail if there is something")
	f.DurationVar(&c.maxAge, "max-age", c.maxAge, "with --check: how long a file may wait; 0 is for ever")
	return cmd
}

// States of files that --state knows beside those of package state.
const (
	stateQueued  = "queued"
	stateSending = "sending"
)

// validate finds mistakes in the flags.
func (c *statusConfig) validate(cmd *cobra.Command) error {
	switch {
	case c.state != "" && c.state != stateQueued && c.state != stateSending && !slices.Contains(state.All, state.State(c.state)):
		return usage(cmd, fmt.Errorf("unknown state %q: give %s, %s or one of %s", c.state, stateQueued, stateSending, joinStates(state.All)))
	case c.limit < 1:
		return usage(cmd, fmt.Errorf("limit %d: give at least 1", c.limit))
	case c.maxAge < 0:
		return usage(cmd, fmt.Errorf("max-age %s: give a time like 1h, or 0 for none", c.maxAge))
	case c.check && (c.asJSON || c.watch || c.all || c.state != ""):
		return usage(cmd, errors.New("--check prints its own lines: give it without the flags for lists"))
	case c.after != "" && !c.asJSON:
		return usage(cmd, errors.New("--after is for --json"))
	}
	return nil
}

// joinStates lists states for people.
func joinStates(list []state.State) string {
	var names []string
	for _, s := range list {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// query is what --state asks for, with at most limit files.
func (c *statusConfig) query(limit int) uploader.Query {
	q := uploader.Query{After: c.after, Limit: limit}
	switch c.state {
	case "":
	case stateQueued:
		q.Queued = true
	case stateSending:
		q.Sending = true
	default:
		q.States = []state.State{state.State(c.state)}
	}
	if c.all {
		q.Limit = 0
	}
	return q
}

// show prints once. A mount that does not answer hides no other one.
func (c *statusConfig) show(ctx context.Context, w io.Writer, args []string) error {
	screen := screenOf(w)
	queries := []uploader.Query{c.query(c.limit)}
	if !c.asJSON {
		queries = c.queries(screen)
	}
	list, err := reports(ctx, args, queries)
	if len(list) == 0 && err != nil {
		return err
	}
	if c.asJSON {
		return errors.Join(printJSON(w, list), err)
	}
	return errors.Join(c.print(w, screen, list, time.Now()), err)
}

// repeatedly shows once a second until ctx ends, on a terminal in place: what is there
// is written over, so that nothing flickers.
func repeatedly(ctx context.Context, w io.Writer, show func(context.Context, io.Writer) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	inPlace := isTerminal(w)
	if inPlace {
		fmt.Fprint(w, "\x1b[H\x1b[2J") // home, clear
	}
	for {
		var err error
		if inPlace {
			frame := &frame{screen: screenOf(w)}
			err = show(ctx, frame)
			if _, failed := w.Write(frame.bytes()); failed != nil {
				return failed
			}
		} else {
			err = show(ctx, w)
		}
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

// reports asks the mount on the directory named, or all mounts that this user may
// ask, each query in turn. It asks all mounts at once, each for a bounded time, so that
// none holds up another.
func reports(ctx context.Context, args []string, queries []uploader.Query) ([][]mount.Report, error) {
	entries, err := named(args)
	if err != nil {
		return nil, err
	}
	found := make([][]mount.Report, len(entries))
	errs := make([]error, len(entries))
	var calls sync.WaitGroup
	for i, m := range entries {
		calls.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, errSilent)
			defer cancel()
			for _, q := range queries {
				rep, err := mount.NewClient(m).Status(ctx, q)
				if err != nil {
					errs[i] = err
					return
				}
				found[i] = append(found[i], rep)
			}
		})
	}
	calls.Wait()
	var list [][]mount.Report
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

// printJSON prints the first report of each mount.
func printJSON(w io.Writer, list [][]mount.Report) error {
	enc := json.NewEncoder(w)
	for _, r := range list {
		if err := enc.Encode(&r[0]); err != nil {
			return err
		}
	}
	return nil
}
