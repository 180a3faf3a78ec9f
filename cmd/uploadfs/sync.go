package main

import (
	"github.com/spf13/cobra"

	"uploadfs/mount"
)

// hookCommand becomes the program of --on-complete or --on-failure.
func hookCommand() *cobra.Command {
	return &cobra.Command{
		Use:    mount.HookCommand + " UMASK PROGRAM",
		Short:  "run the program of a hook",
		Hidden: true,
		Args:   takes(2, 2, "name the umask and the program"),
		RunE:   func(_ *cobra.Command, args []string) error { return mount.ExecHook(args[0], args[1]) },
	}
}

// syncCommand is what a daemon runs before a signal ends it. The daemon cannot sync
// its own mount, and there may be no sync(1).
func syncCommand() *cobra.Command {
	return &cobra.Command{
		Use:    mount.SyncCommand + " DEVICE",
		Short:  "sync a mount",
		Hidden: true,
		Args:   takes(1, 1, "name the device, major:minor"),
		RunE:   func(_ *cobra.Command, args []string) error { return mount.SyncMount(args[0]) },
	}
}
