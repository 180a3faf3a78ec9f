package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"uploadfs/mount"
)

func retryCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "retry PATH...|DIR...|--all",
		Short: "try failed or interrupted files again",
		Long: `Has the daemon of the mount try each file again, or every failed or interrupted file
of a directory and of those below it. It returns at once; follow the uploads with
uploadfs wait or uploadfs status.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage(cmd, errors.New("name the files or directories to try again, or give --all"))
			}
			retry := func(m mount.Entry, path, below string) error {
				n, err := mount.NewClient(m).Retry(cmd.Context(), below)
				if fi, dir := os.Lstat(path); n > 0 && (dir == nil && fi.IsDir()) {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %d tried again\n", mount.Printable(path), n)
				}
				return err
			}
			if !all {
				return eachFile(args, retry)
			}
			entries, err := named(nil)
			errs := []error{err}
			for _, m := range entries {
				if err := retry(m, m.Point, ""); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", mount.Printable(m.Point), err))
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "try every failed or interrupted file of all mounts of this user")
	return cmd
}

// eachFile calls do for each path, with the mount that it lies in and the path below it.
func eachFile(paths []string, do func(m mount.Entry, path, below string) error) error {
	var errs []error
	for _, path := range paths {
		m, below, err := mount.FindFile(path)
		if err == nil {
			if err = do(m, path, below); err != nil {
				err = fmt.Errorf("%s: %w", mount.Printable(path), err)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
