package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// results is what one package's tests came to.
type results struct {
	passed, failed, skipped int
	failures                []string         // what each failed test printed
	output                  strings.Builder  // what the package printed outside of tests
	running                 map[string]*test // by name
}

// test is a test that has not ended.
type test struct {
	output    strings.Builder
	subtests  int  // that have ended
	subFailed bool // at least one of them
}

func newResults() *results { return &results{running: map[string]*test{}} }

// event takes an event in and reports whether the package has ended with it.
func (p *results) event(e event) (ended bool) {
	if e.Test == "" {
		switch e.Action {
		case "output":
			p.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			return true
		}
		return false
	}
	t := p.running[e.Test]
	if t == nil {
		t = new(test)
		p.running[e.Test] = t
	}
	switch e.Action {
	case "output":
		if !strings.HasPrefix(e.Output, "=== ") { // RUN, PAUSE, CONT, NAME
			t.output.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		delete(p.running, e.Test)
		p.ended(e.Test, t, e.Action)
	}
	return false
}

// ended counts a test.
func (p *results) ended(name string, t *test, how string) {
	if parent := p.parent(name); parent != nil {
		parent.subtests++
		parent.subFailed = parent.subFailed || how == "fail"
	}
	switch {
	case how == "fail":
		if !t.subFailed {
			p.failed++
		}
		p.failures = append(p.failures, t.output.String())
	case t.subtests > 0:
	case how == "skip":
		p.skipped++
	default:
		p.passed++
	}
}

// parent finds the running test that a subtest belongs to, nil if it is none. A
// subtest's own name may hold slashes.
func (p *results) parent(name string) *test {
	for {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return nil
		}
		name = name[:i]
		if t := p.running[name]; t != nil {
			return t
		}
	}
}

// close counts what a failed package leaves open: tests that never ended, subtests
// before those they belong to, and a failure that no test is to blame for.
func (p *results) close() {
	names := slices.Sorted(maps.Keys(p.running))
	slices.Reverse(names)
	for _, name := range names {
		t := p.running[name]
		delete(p.running, name)
		fmt.Fprintf(&t.output, "--- %s did not end\n", name)
		p.ended(name, t, "fail")
	}
	if p.failed == 0 {
		p.failed = 1
	}
}

// counts is the result in words.
func (p *results) counts() string {
	s := fmt.Sprintf("%4d passed, %d failed", p.passed, p.failed)
	if p.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", p.skipped)
	}
	return s
}
