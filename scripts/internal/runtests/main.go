// Command runtests is what scripts/test runs once the machine has what it needs:
// checks of the source, one compilation, and every package's tests.
//
//	runtests [-all] [-silence 10m] [NAME…]
//
// It starts each test binary itself and not through go test, for two reasons: it
// has to know the process that hangs, and no time limit may decide a verdict. Each
// step has a directory of its own; what it leaves there, or mounts, or keeps running,
// is removed before the result is printed, and is the step's failure.
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
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

// options are what the caller asks for.
type options struct {
	all     bool          // the full matrices, and what takes long
	silence time.Duration // without an event of a test binary, after which it hangs
	names   []string      // of steps or packages; empty for all
}

func command(args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("scripts/test", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.all, "all", false, "the full matrices, fuzzing, soak, browser, packages, tools and benchmarks too")
	flags.DurationVar(&o.silence, "silence", 10*time.Minute, "take a test binary for hanging when it has told nothing for so long")
	flags.Usage = func() { usage(flags) }
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	o.names = flags.Args()
	packages, err := listPackages()
	if err != nil {
		fmt.Fprintln(stderr, "scripts/test:", err)
		return 1
	}
	steps, err := plan(o, packages, os.Geteuid() == 0)
	if err != nil {
		fmt.Fprintln(stderr, "scripts/test:", err)
		return 2
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	r, err := newRun(ctx, o, stdout)
	if err != nil {
		fmt.Fprintln(stderr, "scripts/test:", err)
		return 1
	}
	defer r.close()
	r.steps(steps)
	if ctx.Err() != nil {
		fmt.Fprintln(stdout, "\ninterrupted:", context.Cause(ctx))
		return 130
	}
	if r.summary() {
		return 1
	}
	return 0
}

// usage lists the flags and the names of all steps.
func usage(flags *flag.FlagSet) {
	w := flags.Output()
	fmt.Fprint(w, "usage: scripts/test [flags] [NAME…]\n\nFlags:\n")
	flags.PrintDefaults()
	fmt.Fprint(w, "\nA NAME is a step, or a package such as ./fusefs, which stands for all runs of its tests:\n\n")
	packages, err := listPackages()
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	steps, err := plan(options{all: true}, packages, os.Geteuid() == 0)
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	for _, s := range steps {
		about := s.about
		if s.onlyAll {
			about += " (with --all, or by name)"
		}
		fmt.Fprintf(w, "  %-28s %s\n", s.name, about)
	}
}

// chosen are the steps that names stand for, and those that they need. A name is
// a step's or a package's.
func chosen(steps []*step, names []string) ([]*step, error) {
	want := map[*step]bool{}
	for _, name := range names {
		clean := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(name, "./"), module+"/"), "/")
		found := false
		for _, s := range steps {
			if s.name == clean || s.pkg != "" && s.pkg == clean {
				found, want[s] = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no step or package %q: scripts/test --help lists them", name)
		}
	}
	compiles := slices.ContainsFunc(steps, func(s *step) bool { return want[s] && s.pkg != "" })
	return slices.DeleteFunc(slices.Clone(steps), func(s *step) bool {
		return !want[s] && !(compiles && s.name == compileStep)
	}), nil
}
