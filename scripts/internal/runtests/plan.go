package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// step is one thing that can fail.
type step struct {
	name    string // as callers name it, and its log
	about   string
	pkg     string // the package whose tests it runs, "" for none
	onlyAll bool   // it runs with --all only, unless it is named
	beside  bool   // it may run beside other such steps
	minutes int    // roughly, warm: of steps that run beside each other the longest begin first
	run     func(ctx context.Context, w *work) result
}

const (
	compileStep = "compile"

	staticcheckVersion = "v0.8.2"
	maxFile            = 24 << 10 // of Go code, bytes

	fullEnv      = "UPLOADFS_TEST_FULL" // set for tests: run the whole of long matrices
	writePathEnv = "UPLOADFS_TEST_WRITE_PATH"
	nobodyID     = 65534
	soakRounds   = 20 // of each mode, with --all
)

// asNobody are the packages whose mounts do something else for an ordinary user.
// cmd/uploadfs has both users in its own tests.
var asNobody = []string{"fusefs", "mount"}

// writebackOnly are the tests that depend on the write path and need root to see
// more than fusefs:nobody does, whose mounts write back too.
const writebackOnly = "^Test(Posix|Attrs|Mount|Writers|WriteDuringCommit|Processes|FullDisk|FailedWrite)"

// sameForAll are the tests of fusefs that an ordinary user runs with --all alone: what
// they try are answers of the API, its schedule, and programs, which know no user. New
// tests run as both.
const sameForAll = "^Test(DecideClose|AutoPartSize|CloseBeside|ClosesShare|WhatSupersedes|WrongPrediction|" +
	"Retry|Stall|Slow|Truncated|Expir|TwoMounts|An|CompleteIs|CreateIs|Lost|BadLine|EndpointAway|Refused|" +
	"A(Small|File|Slow|Retry|Namesake)|FilesOf|Settle|" +
	"Posix(Large|Listing|Rewind)|Tool(Archives|Rsync|Editors|Databases|Download|Python|ExitStatus))"

// userTests is a part of fusefs:nobody, for those who call go test by hand.
const userTests = "^TestAsOrdinaryUser$"

// minutesOf are the long runs of tests.
var minutesOf = map[string]int{"fusefs": 4, "fusefs:nobody": 2, "cmd/uploadfs": 2, "fusefs:writeback": 1, "uploader": 1}

// raceFlags is the environment of what is compiled with the race detector. It leaves
// SQLite's own code out: C translated to Go, on memory that the detector does not
// watch, which it makes several times slower. Only a package without generic code can be
// left out. The linker could take its functions, without the detector, for those of
// others.
func raceFlags() string {
	return "GOFLAGS=" + strings.TrimSpace(os.Getenv("GOFLAGS")+" -gcflags=modernc.org/sqlite/lib=-race=false")
}

// plan is what is to be done, in order.
func plan(o options, packages []*goPackage, root bool) ([]*step, error) {
	steps := []*step{
		{name: "gofmt", about: "every file is formatted", run: check(formatted)},
		{name: "size", about: fmt.Sprintf("no Go file has more than %d bytes", maxFile), run: check(small)},
		{name: "imports", about: "who may import whom", run: check(program("scripts/check-imports"))},
		{name: "shellcheck", about: "the scripts", run: check(shell)},
		{name: "modules", about: "go.mod is tidy, and the README names its Go", run: check(modules)},
		{name: "tools-doc", about: "docs/tools.md is what the cases of scripts/tools say", run: check(program("go", "run", "./scripts/internal/tools", "-doc", "docs/tools.md", "-check"))},
		{name: compileStep, about: "all test binaries, with the race detector", run: compile(packages, o.names)},
	}
	tests, err := testSteps(o, packages, root)
	if err != nil {
		return nil, err
	}
	// They use what was compiled for the tests, so they are as cheap here as anywhere.
	beside := append(tests,
		&step{name: "vet", about: "go vet", beside: true, run: check(func(ctx context.Context, w *work) error {
			return w.command(ctx, []string{raceFlags()}, "go", "vet", "-race", "./...")
		})},
		&step{name: "staticcheck", about: "staticcheck " + staticcheckVersion, beside: true, minutes: 1, run: check(lint)},
		&step{name: "macos-types", about: "the code for macOS has no error of types", beside: true, run: check(macTypes)},
	)
	slices.SortStableFunc(beside, func(a, b *step) int { return b.minutes - a.minutes })
	steps = append(steps, beside...)
	steps = append(steps, extraSteps(packages, root)...)
	if len(o.names) > 0 {
		return chosen(steps, o.names)
	}
	return slices.DeleteFunc(steps, func(s *step) bool { return s.onlyAll && !o.all }), nil
}

// testSteps are the runs of all packages' tests. Beside those of root are those
// of an ordinary user, whose mounts write back and who may do less, and those of
// root in write-back: root's other mounts pass through to the disk.
func testSteps(o options, packages []*goPackage, root bool) ([]*step, error) {
	var steps []*step
	add := func(label, about string, t testRun) {
		name := t.pkg.path + label
		t.name, t.full = name, o.all
		steps = append(steps, &step{
			name: name, about: about, pkg: t.pkg.path, beside: true, minutes: minutesOf[name], run: t.run,
		})
	}
	for _, p := range packages {
		if len(p.tests) == 0 {
			continue
		}
		if !root {
			add("", "tests", testRun{pkg: p, only: "."})
			continue
		}
		add("", "tests, as root", testRun{pkg: p, only: ".", skip: userTests})
		if slices.Contains(asNobody, p.path) {
			t := testRun{pkg: p, only: ".", nobody: true}
			if p.path == "fusefs" && !o.all {
				t.skip = sameForAll
			}
			add(":nobody", "tests, as an ordinary user", t)
		}
		if p.path == "fusefs" {
			only := writebackOnly
			if o.all {
				only = "."
			}
			add(":writeback", "tests, as root in write-back", testRun{pkg: p, only: only, skip: userTests, env: []string{writePathEnv + "=writeback"}})
		}
	}
	for _, name := range asNobody {
		if !slices.ContainsFunc(packages, func(p *goPackage) bool { return p.path == name }) {
			return nil, fmt.Errorf("there is no package %s to be tested as an ordinary user: mend asNobody", name)
		}
	}
	return steps, nil
}

// extraSteps are those of --all alone.
func extraSteps(packages []*goPackage, root bool) []*step {
	steps := []*step{{
		name: "macos", about: "the build for macOS", onlyAll: true,
		run: check(func(ctx context.Context, w *work) error {
			return w.command(ctx, []string{"GOOS=darwin"}, "go", "build", "./...")
		}),
	}}
	for _, p := range packages {
		for _, name := range p.fuzz {
			steps = append(steps, &step{
				name: p.path + ":" + name, about: "fuzzing for a minute", onlyAll: true,
				run: check(program("go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", "1m", "./"+p.path)),
			})
		}
		for _, name := range p.bench {
			steps = append(steps, &step{
				name: p.path + ":" + name, about: "the benchmark, once", onlyAll: true,
				run: check(program("go", "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", "1x", "./"+p.path)),
			})
		}
	}
	for _, mode := range []string{"kill", "outlive", "power", "two-mounts"} {
		if mode == "power" && !root {
			continue
		}
		steps = append(steps, &step{
			name: "soak:" + mode, about: fmt.Sprintf("scripts/soak -mode %s, %d rounds", mode, soakRounds), onlyAll: true,
			run: check(program("scripts/soak", "-mode", mode, "-rounds", fmt.Sprint(soakRounds))),
		})
	}
	steps = append(steps, &step{
		name: "tools", about: "scripts/tools: over a hundred programs in all kinds of mounts", onlyAll: true,
		run: toolMatrix,
	})
	steps = append(steps, &step{
		name: "browser", about: "scripts/browser: the page of a mount in Chromium", onlyAll: true,
		run: check(program("scripts/browser")),
	})
	steps = append(steps, &step{
		name: "package", about: "scripts/check-package: the .deb is installed, mounts by fstab, is removed", onlyAll: true,
		run: packaged,
	})
	return append(steps, &step{
		name: "bench", about: "scripts/bench, with a hundredth of its data", onlyAll: true,
		run: check(program("scripts/bench", "-runs", "1", "-scale", "100")),
	})
}

// groups divides packages so that no two of a group have test binaries of one name:
// go test -c writes all into one directory.
func groups(packages []*goPackage) [][]*goPackage {
	var list [][]*goPackage
next:
	for _, p := range packages {
		for i, g := range list {
			if !slices.ContainsFunc(g, func(q *goPackage) bool { return q.binary() == p.binary() }) {
				list[i] = append(g, p)
				continue next
			}
		}
		list = append(list, []*goPackage{p})
	}
	return list
}

// compile builds the test binaries of all packages, or of those named. It links
// what it can when one does not compile.
func compile(packages []*goPackage, names []string) func(context.Context, *work) result {
	return check(func(ctx context.Context, w *work) error {
		var with []*goPackage
		for _, p := range packages {
			if len(p.tests) > 0 && (len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return concerns(n, p.path) })) {
				with = append(with, p)
			}
		}
		var failed error
		for i, g := range groups(with) {
			dir := filepath.Join(w.r.binaries, fmt.Sprint(i))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			// Without what debuggers need (-w), linking takes two thirds of the time.
			args := []string{"test", "-c", "-race", "-vet=off", "-ldflags=-w", "-o", dir + "/"}
			for _, p := range g {
				args = append(args, "./"+p.path)
				w.r.binary[p.path] = filepath.Join(dir, p.binary())
			}
			if err := w.command(ctx, []string{raceFlags()}, "go", args...); err != nil {
				failed = err
			}
		}
		return failed
	})
}

// concerns reports whether a caller's name stands for the package, a run of its
// tests, or the compilation of everything.
func concerns(name, pkg string) bool {
	clean := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(name, "./"), module+"/"), "/")
	clean, _, _ = strings.Cut(clean, ":")
	return clean == pkg || clean == compileStep
}
