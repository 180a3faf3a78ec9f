package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// result is how a step ended.
type result struct {
	passed, failed, skipped int
	notRun                  int    // tests that would have come after the end of their binary
	text                    string // what people have to see of it
	slow                    []slowTest
	cpu                     time.Duration // of the step's processes
}

type slowTest struct {
	name string
	took time.Duration
}

// counts is the result in words.
func (r *result) counts() string {
	s := fmt.Sprintf("%d passed, %d failed", r.passed, r.failed)
	if r.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", r.skipped)
	}
	if r.notRun > 0 {
		s += fmt.Sprintf(", %d not run", r.notRun)
	}
	return s
}

// results is what the events of one test binary have told so far.
//
// A test with subtests is counted only when it failed and none of them did: what
// is counted are checks, not the names that group them. A binary that fails without
// a failing test (its TestMain found something left behind) counts as one failure.
type results struct {
	result
	failures []string         // what each failed test printed
	output   strings.Builder  // what the binary printed outside of tests
	running  map[string]*test // by name
	begun    map[string]bool  // all top-level tests that were heard of
}

// test is a test that has not ended.
type test struct {
	output    strings.Builder
	paused    bool // it waits for its turn among parallel ones
	subtests  int  // that have ended
	subFailed bool // at least one of them
}

func newResults() *results { return &results{running: map[string]*test{}, begun: map[string]bool{}} }

// event takes an event in.
func (p *results) event(e event) {
	if e.Test == "" {
		if e.Action == "output" {
			p.output.WriteString(e.Output)
		}
		return
	}
	t := p.running[e.Test]
	if t == nil {
		t = new(test)
		p.running[e.Test] = t
		if !strings.Contains(e.Test, "/") {
			p.begun[e.Test] = true
		}
	}
	switch e.Action {
	case "pause":
		t.paused = true
	case "cont":
		t.paused = false
	case "output":
		if !strings.HasPrefix(e.Output, "=== ") { // RUN, PAUSE, CONT, NAME
			t.output.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		delete(p.running, e.Test)
		p.ended(e.Test, t, e.Action)
		if !strings.Contains(e.Test, "/") {
			p.slow = append(p.slow, slowTest{e.Test, time.Duration(e.Elapsed * float64(time.Second))})
		}
	}
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

// atWork are the tests that are running: not those that wait for their turn, and not
// those that wait for a subtest at work.
func (p *results) atWork() []string {
	var list []string
	for name, t := range p.running {
		waits := t.paused
		for other, sub := range p.running {
			waits = waits || strings.HasPrefix(other, name+"/") && !sub.paused
		}
		if !waits {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// fail ends the results of a binary that failed, and says first why. It counts what is open: tests that
// never ended, subtests before those they belong to, and a failure that no test is
// to blame for. all are the tests that the binary should have run.
func (p *results) fail(why error, all []string) {
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
	var missing []string
	for _, name := range all {
		if !p.begun[name] {
			missing = append(missing, name)
		}
	}
	p.text = why.Error() + "\n"
	switch p.notRun = len(missing); {
	case p.notRun == 0:
	case len(p.begun) == 0:
		p.text += fmt.Sprintf("not run: all %d tests\n", p.notRun)
	default:
		p.text += fmt.Sprintf("not run: %s\n", strings.Join(missing, ", "))
	}
	p.text += strings.Join(p.failures, "") + p.output.String()
}
