//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// soakDir makes a directory with the command in it, which is removed after the test.
func soakDir(t *testing.T) (dir, binary string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "soak-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	binary = filepath.Join(dir, "uploadfs")
	out, err := exec.Command("go", "build", "-race", "-o", binary, "uploadfs/cmd/uploadfs").CombinedOutput()
	require.NoError(t, err, "%s", out)
	// The race detector sleeps a second at every exit unless told not to.
	t.Setenv("GORACE", "atexit_sleep_ms=0 halt_on_error=1")
	return dir, binary
}

// TestShortRun is a soak of a few rounds. Its seed is always the same, but not
// the scheduling.
func TestShortRun(t *testing.T) {
	dir, binary := soakDir(t)
	work := filepath.Join(dir, "work")
	require.NoError(t, os.Mkdir(work, 0o755))

	sum, err := run(t.Context(), options{binary: binary, dir: work, path: "auto", rounds: 6, writers: 3, seed: 1, log: t.Logf})
	t.Log(sum)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(work, "state", "uploadfs.log"))
		t.Logf("log of the mount:\n%s", log)
	}
	require.NoError(t, err)
	require.Equal(t, 6, sum.rounds)
	require.Positive(t, sum.told)
	require.Positive(t, sum.results)
}

// TestScenarios runs each other mode for two rounds.
func TestScenarios(t *testing.T) {
	dir, binary := soakDir(t)
	for mode := range scenarios {
		t.Run(mode, func(t *testing.T) {
			work := filepath.Join(dir, mode)
			require.NoError(t, os.Mkdir(work, 0o755))
			sum, err := runScenario(t.Context(), options{binary: binary, dir: work, path: "auto", mode: mode, rounds: 2, seed: 1, log: t.Logf})
			t.Log(sum)
			require.NoError(t, err)
			require.Equal(t, 2, sum.rounds)
			require.True(t, sum.whole)
			require.Positive(t, sum.files)
		})
	}
}
