package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"uploadfs/mount"
)

func unmountCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unmount MOUNTPOINT",
		Aliases: []string{"umount"},
		Short:   "unmount, upload what is pending, and wait until the daemon is gone",
		Long: `Unmounts first, so that nothing new can arrive, then waits for pending uploads as
long as the mount's --drain-timeout says, and returns when the daemon is gone.

A mount with open files is left as it is. What is not uploaded by the timeout is
named, with exit status 1; it stays in the state directory, and the next mount goes
on with it.`,
		Args: takes(1, 1, "name the one directory to unmount"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, gone, err := mount.Unmount(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if gone {
				fmt.Fprintf(cmd.ErrOrStderr(), "uploadfs: the daemon was gone; if uploads were pending, they go on at the next mount\n")
			}
			return printOutcome(cmd.ErrOrStderr(), out)
		},
	}
}

// printOutcome names the files that a mount left behind. Only files that are still to
// be uploaded make unmount fail; a refused file has failed its close.
func printOutcome(w io.Writer, out mount.Outcome) error {
	for _, p := range out.Failed {
		fmt.Fprintf(w, "uploadfs: failed, kept: %s\n", mount.Printable(p))
	}
	for _, p := range out.Interrupted {
		fmt.Fprintf(w, "uploadfs: interrupted, kept: %s\n", mount.Printable(p))
	}
	if len(out.Left) == 0 {
		return nil
	}
	return &mount.LeftError{Paths: out.Left}
}
