package main

import (
	"github.com/spf13/cobra"

	"uploadfs/mount"
)

func cancelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel PATH...",
		Short: "end the upload of files, and keep the files",
		Long: `Has the daemon of the mount end the upload of each file. The file stays, and
becomes interrupted. uploadfs retry sends it again, and so does new content. A close
that waits for the upload fails.

A file whose File is being made cannot be cancelled any more, nor one that a program
is still writing.`,
		Args: takes(1, -1, "name the files whose upload is to end"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachFile(args, func(m mount.Entry, _, below string) error {
				return mount.NewClient(m).Cancel(cmd.Context(), below)
			})
		},
	}
}
