package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patient compiles a real test binary, whose tests do what can happen to one.
var patient = sync.OnceValues(func() (binary string, err error) {
	dir, err := os.MkdirTemp("", "patient-")
	if err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "patient.test")
	out, err := exec.Command("go", "test", "-c", "-race", "-o", binary, "./testdata/patient").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binary, err := patient(); err == nil {
		os.RemoveAll(filepath.Dir(binary))
	}
	os.Exit(code)
}

// testWork is a step's, in a run of its own.
func testWork(t *testing.T) *work {
	t.Helper()
	dir := t.TempDir()
	r := &run{ctx: t.Context(), dir: dir, o: options{silence: time.Hour}}
	binary, err := patient()
	require.NoError(t, err)
	r.binary = map[string]string{"patient": binary}
	w := &work{r: r, dir: filepath.Join(dir, "1"), tmp: filepath.Join(dir, "1", "tmp")}
	require.NoError(t, os.MkdirAll(w.tmp, 0o777))
	w.log, err = os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() { w.log.Close() })
	return w
}

func patientRun(only string) testRun {
	p := &goPackage{path: "patient", dir: "/", tests: []string{
		"TestPasses", "TestPaused", "TestHangs", "TestNeverBegins", "TestLeaves", "TestStays", "TestPanics",
	}}
	return testRun{name: "patient", pkg: p, only: only}
}

func TestRunPasses(t *testing.T) {
	w := testWork(t)
	res := patientRun("^Test(Passes|Paused)$").run(t.Context(), w)
	require.Equal(t, "2 passed, 0 failed", res.counts(), res.text)
	require.Empty(t, w.sweep())
	require.Contains(t, w.output(), "--- PASS: TestPasses", "the log has everything")
	require.Len(t, res.slow, 2)
	require.NoDirExists(t, w.dir)
}

// TestRunHangs has silence begin when the patient has said that it hangs.
func TestRunHangs(t *testing.T) {
	w := testWork(t)
	run := patientRun("^Test(Passes|Paused|Hangs|NeverBegins)$")
	now := make(chan time.Time)
	close(now)
	run.quiet = func(last event) <-chan time.Time {
		if strings.Contains(last.Output, "hanging now") {
			return now
		}
		return nil
	}
	res := run.run(t.Context(), w)
	require.Equal(t, "1 passed, 2 failed, 1 not run", res.counts(), res.text)
	require.Contains(t, res.text, "running: TestHangs/here\n")
	require.Contains(t, res.text, "SIGQUIT")
	require.Contains(t, res.text, "patient.TestHangs", "its goroutines")
	require.Contains(t, res.text, "TestPaused did not end")
	require.Contains(t, res.text, "not run: TestNeverBegins\n")
	require.Empty(t, w.sweep())
}

// TestSilenceIsATimer lets the real timer run out. Whatever the patient is at by
// then, it ends and has failed.
func TestSilenceIsATimer(t *testing.T) {
	w := testWork(t)
	w.r.o.silence = time.Millisecond
	res := patientRun("^TestHangs$").run(t.Context(), w)
	require.Positive(t, res.failed)
	require.Contains(t, res.text, "hangs: nothing was heard of it for 1ms")
	require.Empty(t, w.sweep())
}

func TestRunPanics(t *testing.T) {
	w := testWork(t)
	res := patientRun("^TestPanics$").run(t.Context(), w)
	require.Positive(t, res.failed)
	require.Contains(t, res.text, "panic: the patient's")
	require.Empty(t, w.left)
}

func TestRunIsInterrupted(t *testing.T) {
	w := testWork(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	run := patientRun("^TestHangs$")
	run.quiet = func(last event) <-chan time.Time {
		if strings.Contains(last.Output, "hanging now") {
			cancel(errors.New("enough"))
		}
		return nil
	}
	res := run.run(ctx, w)
	require.Positive(t, res.failed)
	require.Empty(t, w.sweep())
}

func TestNotCompiled(t *testing.T) {
	w := testWork(t)
	w.r.binary["patient"] = filepath.Join(w.dir, "absent")
	res := patientRun("^TestPasses$").run(t.Context(), w)
	require.Equal(t, "0 passed, 1 failed, 1 not run", res.counts())
	require.Contains(t, res.text, "not compiled")
}

// TestWhatIsLeft finds what a step leaves behind, and removes it.
func TestWhatIsLeft(t *testing.T) {
	old := grace
	grace = 0
	t.Cleanup(func() { grace = old })
	w := testWork(t)
	res := patientRun("^TestLeaves$").run(t.Context(), w)
	require.Equal(t, "1 passed, 0 failed", res.counts(), res.text)
	left := w.sweep()
	require.Len(t, left, 2, left)
	require.Contains(t, left[0], "process ")
	require.Contains(t, left[0], "TestStays")
	require.Equal(t, "file forgotten", left[1])
	require.Empty(t, w.processes())
	require.NoDirExists(t, w.dir)
}

// TestMountIsLeft has a step leave a mount, with a file on it that must not be
// removed.
func TestMountIsLeft(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	w := testWork(t)
	kept := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(kept, "f"), nil, 0o600))
	point := filepath.Join(w.tmp, "a point")
	require.NoError(t, os.Mkdir(point, 0o700))
	out, err := exec.Command("mount", "--bind", kept, point).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, []string{"mount " + point, "file a point"}, w.sweep())
	require.FileExists(t, filepath.Join(kept, "f"))
	require.NoDirExists(t, w.dir)
}

func TestStateDirectoryIsLeft(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has state there")
	}
	w := testWork(t)
	w.r.dir = filepath.Join(w.r.dir, fmt.Sprintf("uploadfs.test.%d", os.Getpid()))
	w.dir = filepath.Join(w.r.dir, "1")
	w.tmp = filepath.Join(w.dir, "tmp")
	require.NoError(t, os.MkdirAll(w.tmp, 0o755))
	state := filepath.Join(stateDirs, strings.ReplaceAll(strings.TrimPrefix(w.tmp, "/"), "/", "-")+"-up")
	require.NoError(t, os.MkdirAll(state, 0o700))
	require.Equal(t, []string{"state directory " + state}, w.sweep())
	require.NoDirExists(t, state)
}
