package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version, the commit and the Go version",
		Args:  takes(0, 0, "there is nothing to name"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version(debug.ReadBuildInfo()))
			return err
		},
	}
}

// What scripts/package builds is told its release and its commit by the linker.
var packaged, commit = "", "unknown"

// version describes the build. A program built outside of a checkout has no commit.
func version(info *debug.BuildInfo, ok bool) string {
	release, commit := "(devel)", commit
	if packaged != "" {
		release = packaged
	} else if ok {
		if info.Main.Version != "" {
			release = info.Main.Version
		}
		changed := ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				changed = ", with changes"
			}
		}
		commit += changed
	}
	return fmt.Sprintf("uploadfs %s, commit %s, %s %s/%s", release, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
