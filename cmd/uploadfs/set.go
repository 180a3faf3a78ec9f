package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"uploadfs/mount"
)

func setCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set MOUNTPOINT KEY=VALUE...",
		Short: "change a running mount: limit-upload, parallel",
		Long: `Changes settings of a running mount, until it ends:

  limit-upload=RATE  bytes per second over all connections, as in 2MiB, or off
  parallel=N         parts in flight over the whole mount`,
		Example: "  uploadfs set ~/up limit-upload=2MiB parallel=4",
		Args:    takes(2, -1, "name the mount point and what to set, as in limit-upload=2MiB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := parseSettings(args[1:])
			if err != nil {
				return usage(cmd, err)
			}
			return change(cmd, args[0], s)
		},
	}
}

func parseSettings(args []string) (s mount.Settings, err error) {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "limit-upload":
			s.Limit = new(int64)
			*s.Limit, err = mount.ParseLimit(value)
		case "parallel":
			s.Parallel = new(int)
			*s.Parallel, err = mount.ParseParallel(value)
		default:
			err = fmt.Errorf("use limit-upload=RATE or parallel=N")
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", arg, err)
		}
	}
	return s, nil
}

func pauseCommand() *cobra.Command {
	return pausing("pause", "stop sending until resume", true, `No further part or other call to the API begins; what is under way goes on to its end.
A close waits while the mount is paused. The end of the mount ends the pause too.`)
}

func resumeCommand() *cobra.Command {
	return pausing("resume", "go on after pause", false, "Lets the mount send again after uploadfs pause.")
}

func pausing(name, short string, paused bool, long string) *cobra.Command {
	return &cobra.Command{
		Use: name + " MOUNTPOINT", Short: short, Long: long,
		Args: takes(1, 1, "name one mount point"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return change(cmd, args[0], mount.Settings{Paused: &paused})
		},
	}
}

// change sends settings to the mount on a directory.
func change(cmd *cobra.Command, point string, s mount.Settings) error {
	m, err := mount.Find(point)
	if err != nil {
		return err
	}
	return mount.NewClient(m).Set(cmd.Context(), s)
}
