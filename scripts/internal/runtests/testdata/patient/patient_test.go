// Package patient has tests that do what can happen to a test binary. The runner's
// own tests compile and run them.
package patient

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestPasses(t *testing.T) {}

func TestPaused(t *testing.T) { t.Parallel() }

// TestHangs hangs in a subtest.
func TestHangs(t *testing.T) {
	t.Run("here", func(t *testing.T) {
		fmt.Println("hanging now")
		select {}
	})
}

func TestNeverBegins(t *testing.T) {}

// TestLeaves leaves a file, and a process that holds its output and does not end when it
// is asked to.
func TestLeaves(t *testing.T) {
	if err := os.WriteFile(filepath.Join(os.TempDir(), "forgotten"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/proc/self/exe", "-test.run=^TestStays$", "-test.timeout=0")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
}

func TestStays(t *testing.T) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	time.Sleep(24 * time.Hour)
}

func TestPanics(t *testing.T) { panic("the patient's") }
