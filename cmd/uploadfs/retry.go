package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"uploadfs/mount"
)

func retryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "retry PATH...",
		Short: "try failed or interrupted files again",
		Long: `Has the daemon of the mount try each file again. It returns at once; follow the
upload with uploadfs wait or uploadfs status.`,
		Args: takes(1, -1, "name the files to try again"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachFile(args, func(m mount.Entry, below string) error {
				return mount.NewClient(m).Retry(cmd.Context(), below)
			})
		},
	}
}

// eachFile calls do for each path, with the mount that it lies in and the path below it.
func eachFile(paths []string, do func(m mount.Entry, below string) error) error {
	var errs []error
	for _, path := range paths {
		m, below, err := mount.FindFile(path)
		if err == nil {
			if err = do(m, below); err != nil {
				err = fmt.Errorf("%s: %w", mount.Printable(path), err)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
