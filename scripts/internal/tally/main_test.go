package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tell runs a stream of events and returns what people and the counts get.
func tell(t *testing.T, events ...string) (out, counts string, failed bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "counts")
	var w strings.Builder
	failed, err := run(strings.NewReader(strings.Join(events, "\n")), &w, file)
	require.NoError(t, err)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	return w.String(), string(b), failed
}

func TestPassedTestsAreOnlyCounted(t *testing.T) {
	out, counts, failed := tell(t,
		`{"Action":"start","Package":"p"}`,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}`,
		`{"Action":"pass","Package":"p","Test":"TestA"}`,
		`{"Action":"run","Package":"p","Test":"TestB"}`,
		`{"Action":"skip","Package":"p","Test":"TestB"}`,
		`{"Action":"output","Package":"p","Output":"ok p\n"}`,
		`{"Action":"pass","Package":"p","Elapsed":1.25}`)
	require.False(t, failed)
	require.NotContains(t, out, "chatter")
	require.Contains(t, out, "ok    p")
	require.Equal(t, "p\t1\t0\t1\t1.2\n", counts)
}

func TestGroupsAreNotCounted(t *testing.T) {
	_, counts, failed := tell(t,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"run","Package":"p","Test":"TestA/one/two"}`,
		`{"Action":"pass","Package":"p","Test":"TestA/one/two"}`,
		`{"Action":"run","Package":"p","Test":"TestA/three"}`,
		`{"Action":"fail","Package":"p","Test":"TestA/three"}`,
		`{"Action":"fail","Package":"p","Test":"TestA"}`,
		`{"Action":"fail","Package":"p","Elapsed":2}`)
	require.True(t, failed)
	require.Equal(t, "p\t1\t1\t0\t2.0\n", counts)
}

func TestGroupThatFailsByItselfIsCounted(t *testing.T) {
	_, counts, _ := tell(t,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"run","Package":"p","Test":"TestA/one"}`,
		`{"Action":"pass","Package":"p","Test":"TestA/one"}`,
		`{"Action":"fail","Package":"p","Test":"TestA"}`,
		`{"Action":"fail","Package":"p","Elapsed":2}`)
	require.Equal(t, "p\t1\t1\t0\t2.0\n", counts)
}

func TestFailedTestsAreQuoted(t *testing.T) {
	out, _, failed := tell(t,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: 1 \u003c 2\n"}`,
		`{"Action":"fail","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Output":"FAIL\n"}`,
		`{"Action":"fail","Package":"p"}`)
	require.True(t, failed)
	require.Contains(t, out, "a_test.go:1: 1 < 2\n")
	require.NotContains(t, out, "=== RUN")
}

func TestPackageThatFailsWithoutATest(t *testing.T) {
	out, counts, failed := tell(t,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"pass","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Output":"left behind: a mount\n"}`,
		`{"Action":"fail","Package":"p","Elapsed":3}`)
	require.True(t, failed)
	require.Contains(t, out, "left behind: a mount\n")
	require.Equal(t, "p\t1\t1\t0\t3.0\n", counts)
}

func TestPackageThatDoesNotCompile(t *testing.T) {
	out, counts, failed := tell(t,
		`{"ImportPath":"p [p.test]","Action":"build-output","Output":"p/a.go:1: undefined: x\n"}`,
		`{"ImportPath":"p [p.test]","Action":"build-fail"}`,
		`{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`)
	require.True(t, failed)
	require.Contains(t, out, "undefined: x")
	require.Equal(t, "p\t0\t1\t0\t0.0\n", counts)
}

func TestTestsThatNeverEnd(t *testing.T) {
	out, counts, _ := tell(t,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"run","Package":"p","Test":"TestA/sub"}`,
		`{"Action":"output","Package":"p","Output":"panic: test timed out after 1m0s\n"}`,
		`{"Action":"fail","Package":"p"}`)
	require.Contains(t, out, "TestA/sub did not end")
	require.Contains(t, out, "timed out")
	require.Equal(t, "p\t0\t1\t0\t0.0\n", counts)
}

func TestKilledRunFails(t *testing.T) {
	_, counts, failed := tell(t,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"pass","Package":"p","Test":"TestA"}`)
	require.True(t, failed)
	require.Equal(t, "p\t1\t1\t0\t0.0\n", counts)
}

func TestPackageWithoutTestsIsNotNamed(t *testing.T) {
	out, counts, failed := tell(t,
		`{"Action":"output","Package":"p","Output":"?   p [no test files]\n"}`,
		`{"Action":"skip","Package":"p"}`)
	require.False(t, failed)
	require.Empty(t, out)
	require.Empty(t, counts)
}

func TestOtherLinesPassThrough(t *testing.T) {
	out, _, failed := tell(t, "go: module not found")
	require.False(t, failed)
	require.Equal(t, "go: module not found", out)
}
