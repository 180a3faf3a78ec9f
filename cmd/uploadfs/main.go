// Command uploadfs mounts a filesystem whose files are uploaded through the
// OpenAI Uploads API, and shows the state of each upload.
//
// Each subcommand has a file of its own. This package reads flags and the
// environment, prints, and exits: 0 done, 1 failed, 2 usage. Package mount and the
// packages below it decide what happens, and when.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"uploadfs/mount"
)

func main() {
	os.Exit(runAs(os.Args, os.Stdout, os.Stderr))
}

// runAs runs the command, or the helper of mount(8) that it is called as.
func runAs(argv []string, stdout, stderr io.Writer) int {
	helper := helperOf(argv)
	if helper == nil {
		return run(argv[1:], stdout, stderr)
	}
	args, err := helper(argv[1:])
	code := mount.ExitCode(err)
	switch {
	case err != nil:
		printError(stderr, err)
	case args != nil:
		code = run(args, stdout, stderr)
	}
	return helperCode(code)
}

// run is the whole command and returns its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	printError(stderr, err)
	return mount.ExitCode(err)
}

// printError prints one line for each error in a joined one, and before them one
// for each file that a mount left behind.
func printError(w io.Writer, err error) {
	if err == nil {
		return
	}
	var left *mount.LeftError
	if errors.As(err, &left) {
		printPaths(w, "not uploaded yet", left.Left)
		printPaths(w, "failed, kept", left.Failed)
		printPaths(w, "interrupted, kept", left.Interrupted)
	}
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(w, "uploadfs: %s\n", mount.Printable(line))
		}
	}
}

// printPaths prints a line for each path.
func printPaths(w io.Writer, what string, paths []string) {
	for _, p := range paths {
		fmt.Fprintf(w, "uploadfs: %s: %s\n", what, mount.Printable(p))
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "uploadfs",
		Short: "a filesystem that uploads what is written into it through the OpenAI Uploads API",
		// Errors are printed in one place, one line each.
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: configure,
		Args:              cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(cmd, fmt.Errorf("unknown command %q", args[0]))
			}
			return cmd.Help()
		},
	}
	root.Version = version(debug.ReadBuildInfo())
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(usage)
	root.AddCommand(mountCommand(), unmountCommand(), statusCommand(), infoCommand(),
		waitCommand(), retryCommand(), cancelCommand(), setCommand(), pauseCommand(), resumeCommand(), putCommand(), serveCommand(), uploadsCommand(), uploadsPartsCommand(), doctorCommand(), versionCommand(), configCommand(), syncCommand(), hookCommand(), manCommand())
	completeAll(root)
	return root
}

// usage makes err a mistake in the command line, and says where the right one is
// described.
func usage(cmd *cobra.Command, err error) error {
	return &mount.UsageError{Err: fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
}

// takes is a cobra check of the number of arguments, at least min and at most
// max (-1: any number). wanted says which arguments the command takes.
func takes(min, max int, wanted string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < min || (max >= 0 && len(args) > max) {
			return usage(cmd, fmt.Errorf("%d arguments given: %s", len(args), wanted))
		}
		return nil
	}
}
