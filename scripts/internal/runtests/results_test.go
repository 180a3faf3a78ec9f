package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// hear takes events in, as test2json writes them.
func hear(t *testing.T, lines ...string) *results {
	t.Helper()
	p := newResults()
	events := make(chan event, len(lines))
	readEvents(strings.NewReader(strings.Join(lines, "\n")), events)
	close(events)
	for e := range events {
		p.event(e)
	}
	return p
}

func TestPassedTestsAreOnlyCounted(t *testing.T) {
	p := hear(t,
		`{"Action":"start"}`,
		`{"Action":"run","Test":"TestA"}`,
		`{"Action":"output","Test":"TestA","Output":"chatter\n"}`,
		`{"Action":"pass","Test":"TestA","Elapsed":1.5}`,
		`{"Action":"run","Test":"TestB"}`,
		`{"Action":"skip","Test":"TestB"}`,
		`{"Action":"pass","Elapsed":1.25}`)
	require.Equal(t, "1 passed, 0 failed, 1 skipped", p.counts())
	require.Empty(t, p.text)
	require.Equal(t, "TestA", p.slow[0].name)
	require.Equal(t, 1.5, p.slow[0].took.Seconds())
}

func TestGroupsAreNotCounted(t *testing.T) {
	p := hear(t,
		`{"Action":"run","Test":"TestA"}`,
		`{"Action":"run","Test":"TestA/one/two"}`,
		`{"Action":"pass","Test":"TestA/one/two"}`,
		`{"Action":"run","Test":"TestA/three"}`,
		`{"Action":"fail","Test":"TestA/three"}`,
		`{"Action":"fail","Test":"TestA"}`)
	require.Equal(t, "1 passed, 1 failed", p.counts())
}

func TestGroupThatFailsByItselfIsCounted(t *testing.T) {
	p := hear(t,
		`{"Action":"run","Test":"TestA"}`,
		`{"Action":"run","Test":"TestA/one"}`,
		`{"Action":"pass","Test":"TestA/one"}`,
		`{"Action":"fail","Test":"TestA"}`)
	require.Equal(t, "1 passed, 1 failed", p.counts())
}

func TestFailedTestsAreQuoted(t *testing.T) {
	p := hear(t,
		`{"Action":"run","Test":"TestA"}`,
		`{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}`,
		`{"Action":"output","Test":"TestA","Output":"    a_test.go:1: 1 \u003c 2\n"}`,
		`{"Action":"fail","Test":"TestA"}`,
		`{"Action":"output","Output":"FAIL\n"}`)
	p.fail(errors.New("exit status 1"), []string{"TestA"})
	require.Contains(t, p.text, "a_test.go:1: 1 < 2\n")
	require.NotContains(t, p.text, "=== RUN")
	require.Equal(t, "0 passed, 1 failed", p.counts())
}

func TestBinaryThatFailsWithoutATest(t *testing.T) {
	p := hear(t,
		`{"Action":"run","Test":"TestA"}`,
		`{"Action":"pass","Test":"TestA"}`,
		`left behind: a mount`)
	p.fail(errors.New("exit status 1"), []string{"TestA"})
	require.Contains(t, p.text, "left behind: a mount")
	require.Equal(t, "1 passed, 1 failed", p.counts())
}

func TestTestsThatNeverEnd(t *testing.T) {
	p := hear(t,
		`{"Action":"run","Test":"TestA"}`,
		`{"Action":"run","Test":"TestA/sub"}`,
		`{"Action":"output","Output":"panic: of another goroutine\n"}`)
	p.fail(errors.New("exit status 1"), []string{"TestA", "TestB"})
	require.Contains(t, p.text, "TestA/sub did not end")
	require.Contains(t, p.text, "panic: of another goroutine")
	require.Contains(t, p.text, "not run: TestB\n")
	require.Equal(t, "0 passed, 1 failed, 1 not run", p.counts())
}

func TestBinaryThatNeverBegan(t *testing.T) {
	p := hear(t, `cannot build the command`)
	p.fail(errors.New("exit status 1"), []string{"TestA", "TestB"})
	require.Contains(t, p.text, "not run: all 2 tests")
	require.Equal(t, "0 passed, 1 failed, 2 not run", p.counts())
}

func TestAtWork(t *testing.T) {
	run := func(name string) string { return marshal(t, event{Action: "run", Test: name}) }
	pause := func(name string) string { return marshal(t, event{Action: "pause", Test: name}) }
	for name, c := range map[string]struct {
		lines []string
		want  []string
	}{
		"none":                        {nil, nil},
		"one":                         {[]string{run("TestA")}, []string{"TestA"}},
		"paused":                      {[]string{run("TestA"), pause("TestA"), run("TestB")}, []string{"TestB"}},
		"a subtest":                   {[]string{run("TestA"), run("TestA/one")}, []string{"TestA/one"}},
		"all subtests paused":         {[]string{run("TestA"), run("TestA/one"), pause("TestA/one")}, []string{"TestA"}},
		"names that begin the same":   {[]string{run("TestA"), pause("TestA"), run("TestAB")}, []string{"TestAB"}},
		"goes on":                     {[]string{run("TestA"), pause("TestA"), marshal(t, event{Action: "cont", Test: "TestA"})}, []string{"TestA"}},
		"an ended one is not at work": {[]string{run("TestA"), marshal(t, event{Action: "pass", Test: "TestA"})}, nil},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, hear(t, c.lines...).atWork()) })
	}
}

func marshal(t *testing.T, e event) string {
	t.Helper()
	b, err := json.Marshal(e)
	require.NoError(t, err)
	return string(b)
}
