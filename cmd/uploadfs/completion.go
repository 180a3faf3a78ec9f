package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"uploadfs/mount"
	"uploadfs/uploader/api"
	"uploadfs/uploader/state"
)

// completeAll tells the shell what each command and each of its flags takes. Where
// nothing is said of an argument, the shell completes files.
func completeAll(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = completeArgument(cmd.Name())
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if complete := completeFlag(f); complete != nil {
			// The only error is that of a flag that has one already.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, complete)
		}
	})
	for _, sub := range cmd.Commands() {
		completeAll(sub)
	}
}

// completeArgument is for the arguments of the command with this name.
func completeArgument(command string) cobra.CompletionFunc {
	switch command {
	case "mount":
		return completeDirectories
	case "unmount", "status", "set", "pause", "resume":
		return completeMounts
	case "serve", "version", "doctor", "config", "show":
		return cobra.NoFileCompletions
	}
	return nil
}

// completeFlag is for the value of a flag; nil leaves it to the shell.
func completeFlag(f *pflag.Flag) cobra.CompletionFunc {
	if v, ok := f.Value.(*parsedValue); ok && v.choices != nil {
		return cobra.FixedCompletions(v.choices, cobra.ShellCompDirectiveNoFileComp)
	}
	switch f.Name {
	case "purpose":
		return cobra.FixedCompletions(api.Purposes, cobra.ShellCompDirectiveNoFileComp)
	case "state":
		var names []string
		for _, s := range state.All {
			names = append(names, string(s))
		}
		return cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)
	case "options":
		return cobra.FixedCompletions(mount.MountOptions, cobra.ShellCompDirectiveNoFileComp)
	}
	switch value, _ := pflag.UnquoteUsage(f); value {
	case "DIR":
		return completeDirectories
	case "FILE", "PATH":
		return nil
	}
	return cobra.NoFileCompletions
}

func completeDirectories(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// completeMounts are the mount points of all mounts.
func completeMounts(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	mounts, err := mount.FindAll()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var points []cobra.Completion
	for _, m := range mounts {
		points = append(points, m.Point)
	}
	return points, cobra.ShellCompDirectiveNoFileComp
}
