package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"uploadfs/mount"
)

func unmountCommand() *cobra.Command {
	var o mount.UnmountOptions
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "unmount [flags] MOUNTPOINT",
		Aliases: []string{"umount"},
		Short:   "unmount, upload what is pending, and wait until the daemon is gone",
		Long: `Unmounts first, so that nothing new can arrive, then waits for pending uploads as
long as --timeout or else the mount's --drain-timeout says, and returns when the
daemon is gone.

A mount with open files is left as it is, unless you give --lazy or --force. What is
not uploaded by the timeout is named, and so is what has failed or was interrupted
during this mount: the exit status is 1 then. These files stay in the state
directory, and the next mount has them again. What had failed before this mount is
named too, and does not count.`,
		Args: takes(1, 1, "name the one directory to unmount"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("timeout") {
				if o.Timeout = &timeout; o.Force {
					return usage(cmd, errors.New("--force waits for no upload: give it without --timeout"))
				}
				if timeout < 0 {
					return usage(cmd, fmt.Errorf("timeout %s: give a time like 30s, or 0 to wait for no upload", timeout))
				}
			}
			out, gone, err := mount.Unmount(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			if gone {
				fmt.Fprintf(cmd.ErrOrStderr(), "uploadfs: the daemon was gone; if uploads were pending, they go on at the next mount\n")
			}
			printEarlier(cmd.ErrOrStderr(), out.Earlier)
			return out.Err()
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Lazy, "lazy", false, "unmount a busy mount too: programs keep what they have open until the daemon ends")
	f.BoolVar(&o.Force, "force", false, "the same, wait for no upload, and kill a daemon that does not answer")
	f.DurationVar(&timeout, "timeout", 0, "wait so long for pending uploads (default: the mount's --drain-timeout)")
	return cmd
}

// mostEarlier is how many files of one state are named that were so before the mount.
const mostEarlier = 10

// printEarlier names files that had failed or were interrupted before the mount.
func printEarlier(w io.Writer, kept mount.Kept) {
	for _, k := range []struct {
		what  string
		paths []string
	}{{"failed", kept.Failed}, {"interrupted", kept.Interrupted}} {
		printPaths(w, k.what+" before this mount, kept", k.paths[:min(len(k.paths), mostEarlier)])
		if more := len(k.paths) - mostEarlier; more > 0 {
			fmt.Fprintf(w, "uploadfs: %d more %s before this mount, kept\n", more, k.what)
		}
	}
}
