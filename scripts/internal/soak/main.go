//go:build linux

// Command soak is an endless day in the life of a mount, in a few minutes:
// several programs write, the API fails in every way it can, and the daemon is
// killed at random moments, again and again. In the end nothing may be lost, wrong
// or doubled.
//
// It serves the API itself, so that the API outlives the daemons, and drives the
// built command as people do. What each program was told, and what it meant to
// write, is in the [ledger]; [loop.verify] holds the tree and the API against it.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are what a run is made of.
type options struct {
	binary  string        // the command under test
	dir     string        // for everything; exists, and is empty
	path    string        // of written bytes, as mount's --write-path has it
	rounds  int           // how often it goes wrong
	writers int           // programs that write at once
	seed    uint64        // of everything that is left to chance but the scheduling
	mode    string        // what goes wrong: kill or one of scenarios
	length  time.Duration // no round begins later; 0: rounds alone counts
	log     func(format string, args ...any)
}

func main() {
	o := options{log: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	flag.StringVar(&o.binary, "binary", "bin/uploadfs", "the `COMMAND` to test")
	flag.StringVar(&o.dir, "dir", "", "an empty `DIR` to work in; kept if anything goes wrong")
	flag.StringVar(&o.path, "write-path", "auto", "as mount's --write-path")
	flag.StringVar(&o.mode, "mode", "kill", "what goes wrong in each round: kill, outlive, power or two-mounts")
	flag.IntVar(&o.rounds, "rounds", 50, "how often it goes wrong")
	flag.DurationVar(&o.length, "for", 0, "for how long it goes wrong, instead of or beside -rounds; with -mode other than kill")
	flag.IntVar(&o.writers, "writers", 4, "how many programs write at once")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "repeat a run that had this seed")
	flag.Parse()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if o.length > 0 && !given["rounds"] {
		o.rounds = math.MaxInt
	}
	if o.mode == "power" && cannotCutPower() == nil {
		if err := enterNamespace(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var sum fmt.Stringer
	var err error
	if o.mode == "kill" {
		sum, err = run(ctx, o)
	} else {
		sum, err = runScenario(ctx, o)
	}
	fmt.Println(sum)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
