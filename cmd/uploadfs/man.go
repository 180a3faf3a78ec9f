package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the man pages of all commands. scripts/package calls it.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "write the man pages into a directory",
		Hidden: true,
		Args:   takes(1, 1, "name the one directory to write into"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // a build of the same source gives the same pages
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "uploadfs", Manual: "uploadfs"}, args[0])
		},
	}
}
