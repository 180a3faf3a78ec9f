//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain runs the tests in a mount namespace of their own, where they can cut the power.
func TestMain(m *testing.M) {
	if cannotCutPower() == nil {
		if err := enterNamespace(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// soakDir makes a directory with the command in it, which is removed after the test. It
// has the race detector in the full matrix alone, since its starts cost three times as much.
func soakDir(t *testing.T) (dir, binary string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "soak-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	binary = filepath.Join(dir, "uploadfs")
	args := []string{"build", "-o", binary, "uploadfs/cmd/uploadfs"}
	if os.Getenv("UPLOADFS_TEST_FULL") != "" {
		args = slices.Insert(args, 1, "-race")
	}
	out, err := exec.Command("go", args...).CombinedOutput()
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

// TestScenarios runs each other mode for a few rounds.
func TestScenarios(t *testing.T) {
	dir, binary := soakDir(t)
	for mode := range scenarios {
		t.Run(mode, func(t *testing.T) {
			rounds := 2
			if mode == "power" {
				if err := cannotCutPower(); err != nil {
					t.Skip(err)
				}
				rounds = 3
			}
			work := filepath.Join(dir, mode)
			require.NoError(t, os.Mkdir(work, 0o755))
			sum, err := runScenario(t.Context(), options{binary: binary, dir: work, path: "auto", mode: mode, rounds: rounds, seed: 1, log: t.Logf})
			t.Log(sum)
			require.NoError(t, err)
			require.Equal(t, rounds, sum.rounds)
			require.True(t, sum.whole)
			require.Positive(t, sum.files)
		})
	}
}
