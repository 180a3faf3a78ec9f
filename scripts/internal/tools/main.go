//go:build linux

// Command tools runs programs in a mount and in a native directory, and compares what
// they leave: names, content, exit status, and the Files that the API has got.
//
//	tools [-only REGEXP] [-modes passthrough,writeback,nobody,other]
//	tools -doc docs/tools.md [-check]
//
// The cases are in cases/, with the Debian packages that they need. These packages are
// installed into a root of their own, never on the machine. A case whose program is not
// there is skipped, and its line says so.
//
// With -doc nothing is run: the table of the tools in that document is made from the
// cases. With -check it is compared.
//
// The exit status is 0 if nothing failed, 1 if something did, 2 for a wrong call.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// insideEnv is set for the process that has a mount namespace of its own.
const insideEnv = "UPLOADFS_TEST_TOOLS_INSIDE"

// options are what the caller asks for.
type options struct {
	binary  string // uploadfs
	root    string // of the tools
	install bool   // what is missing there
	only    *regexp.Regexp
	modes   []string
	doc     string
	check   bool
	inspect string
}

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

func command(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	failed, err := o.run(ctx, args, stdout)
	if err != nil {
		fmt.Fprintln(stderr, "tools:", err)
	}
	if failed || err != nil {
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("tools", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.binary, "binary", "bin/uploadfs", "the uploadfs `command`")
	flags.StringVar(&o.root, "root", ".cache/tools/root", "the `directory` that the tools' packages are installed in")
	flags.BoolVar(&o.install, "install", true, "install the packages that are missing there")
	only := flags.String("only", "", "run only the cases whose names match this `regexp`")
	modes := flags.String("modes", "passthrough,writeback,nobody,other", "run them in these `mounts`")
	flags.StringVar(&o.doc, "doc", "", "make the table in this `document`, and run nothing")
	flags.BoolVar(&o.check, "check", false, "with -doc: only compare")
	flags.StringVar(&o.inspect, "inspect", "", "print what is in this `directory` of a mount, as JSON, and run nothing")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.only, err = regexp.Compile(*only)
	o.modes = strings.Split(*modes, ",")
	for _, m := range o.modes {
		if !slices.ContainsFunc(allModes, func(known mode) bool { return known.name == m }) {
			err = fmt.Errorf("there is no mode %q", m)
		}
	}
	if flags.NArg() > 0 {
		err = fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(stderr, "tools:", err)
	}
	return o, err
}

func (o options) run(ctx context.Context, args []string, stdout io.Writer) (failed bool, err error) {
	if o.inspect != "" {
		return false, printTree(o.inspect, stdout)
	}
	sections, err := allCases()
	switch {
	case err != nil:
		return false, err
	case o.doc != "":
		return false, writeDoc(o.doc, o.check, sections)
	case os.Geteuid() != 0:
		return false, errors.New("only root can give the tools a root directory of their own")
	case os.Getenv(insideEnv) == "":
		return inNamespace(ctx, args)
	}
	return runMatrix(ctx, o, sections, stdout)
}

// inNamespace runs this program again, where its mounts are seen by nothing else and
// end with it. A signal that ends this one ends that one too, which then unmounts.
func inNamespace(ctx context.Context, args []string) (failed bool, err error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return true, nil // it has said why
	}
	return false, err
}
