// Command tally retells the output of go test -json for people: one line for
// each package, what failing tests printed, and nothing of those that passed.
//
//	go test -json ./... 2>&1 | tally [-counts FILE]
//
// A test with subtests is counted only when it failed and none of them did: what
// is counted are checks, not the names that group them. A package that fails
// without a failing test (it does not compile, its TestMain found something left
// behind) counts as one failure.
//
// With -counts, FILE gets one line for each package appended: its name, passed,
// failed and skipped tests, and seconds, separated by tabs. The exit status is 1
// if anything failed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	file := flag.String("counts", "", "append the counts of each package to this `FILE`")
	flag.Parse()
	failed, err := run(os.Stdin, os.Stdout, *file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
	if failed {
		os.Exit(1)
	}
}

// run retells r to w and appends to the file of counts, if there is one.
func run(r io.Reader, w io.Writer, file string) (failed bool, err error) {
	counts := io.Discard
	if file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
		if err != nil {
			return false, err
		}
		defer f.Close()
		counts = f
	}
	t := newTally(w, counts)
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			t.line(line)
		}
		switch {
		case err == io.EOF:
			t.end()
			return t.failed, t.err
		case err != nil:
			return true, err
		}
	}
}

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output, instead of Package
	FailedBuild string // of a package that fails for that reason
	Test        string
	Output      string
	Elapsed     float64 // seconds
}

// tally is what has been heard so far.
type tally struct {
	out, counts io.Writer
	err         error // the first of writing
	failed      bool
	packages    map[string]*results
	builds      map[string]*strings.Builder // output of the compiler by import path
}

func newTally(out, counts io.Writer) *tally {
	return &tally{out: out, counts: counts, packages: map[string]*results{}, builds: map[string]*strings.Builder{}}
}

func (t *tally) printf(w io.Writer, format string, args ...any) {
	if _, err := fmt.Fprintf(w, format, args...); err != nil && t.err == nil {
		t.err = err
	}
}

// line takes one line in. What is no event is go's own word, such as of a module
// that cannot be had, and is passed on.
func (t *tally) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		t.printf(t.out, "%s", line)
		return
	}
	switch {
	case e.ImportPath != "":
		t.build(e)
	case e.Package != "":
		p := t.packages[e.Package]
		if p == nil {
			p = newResults()
			t.packages[e.Package] = p
		}
		if p.event(e) {
			t.report(p, e)
			delete(t.packages, e.Package)
		}
	}
}

func (t *tally) build(e event) {
	b := t.builds[e.ImportPath]
	if b == nil {
		b = new(strings.Builder)
		t.builds[e.ImportPath] = b
	}
	b.WriteString(e.Output)
}

// report tells how a package ended.
func (t *tally) report(p *results, e event) {
	if e.Action == "skip" {
		return // no test files
	}
	word := "ok  "
	if e.Action == "fail" {
		word, t.failed = "FAIL", true
		p.close()
		if b := t.builds[e.FailedBuild]; b != nil {
			t.printf(t.out, "%s", b)
		}
		for _, f := range p.failures {
			t.printf(t.out, "%s", f)
		}
		t.printf(t.out, "%s", &p.output)
	}
	t.printf(t.out, "%s  %-40s %s  %.1f s\n", word, e.Package, p.counts(), e.Elapsed)
	t.printf(t.counts, "%s\t%d\t%d\t%d\t%.1f\n", e.Package, p.passed, p.failed, p.skipped, e.Elapsed)
}

// end reports packages of which no end was heard: go test itself was killed.
func (t *tally) end() {
	for name, p := range t.packages {
		t.report(p, event{Action: "fail", Package: name})
	}
}
