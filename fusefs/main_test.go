//go:build linux

package fusefs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
)

// TestMain is also the program of the subprocesses that tests start, see helpers.
// After the tests it fails the run for mounts, descriptors and goroutines that are
// left.
func TestMain(m *testing.M) {
	syscall.Umask(0)
	if name := os.Getenv("FUSEFS_TEST_HELPER"); name != "" {
		if err := helpers[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Some tests have a mount's server in this very process: with a single
	// processor the Go scheduler may let a request wait for its own answer.
	runtime.GOMAXPROCS(max(4, runtime.NumCPU()))
	if os.Geteuid() == 0 {
		// As on any desktop system; programs of other users need it.
		if err := os.Chmod("/dev/fuse", 0o666); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(run(m))
}

// run runs the tests in a temporary directory of this run alone, so that leftovers
// of this run differ from those of other programs.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", tempPrefix)
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Setenv("TMPDIR", dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if fuzzing() {
		detachAll(dir)
	}
	if err := errors.Join(leaks(dir), os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "left behind:", err)
		return 1
	}
	return code
}

// fuzzing reports whether this process starts fuzz workers. go test kills them when
// the time is up, wherever they are.
func fuzzing() bool {
	return flag.Lookup("test.fuzz").Value.String() != "" && flag.Lookup("test.fuzzworker").Value.String() != "true"
}

// detachAll detaches the mounts of killed processes below dir.
func detachAll(dir string) {
	mounts, _ := mountsBelow(dir)
	for _, line := range mounts {
		point := strings.Fields(line)[4]
		if unix.Unmount(point, unix.MNT_DETACH) != nil {
			exec.Command("fusermount3", "-u", "-z", point).Run()
		}
	}
}

// mountsBelow are the lines of mountinfo of this filesystem's mounts below dir.
func mountsBelow(dir string) (list []string, err error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " "+fusefs.FSType+" ") && strings.Contains(line, " "+dir+"/") {
			list = append(list, line)
		}
	}
	return list, err
}

// leaks names the mounts below dir, descriptors and goroutines that are left.
func leaks(dir string) error {
	mounts, err := mountsBelow(dir)
	all := []error{err}
	for _, line := range mounts {
		all = append(all, errors.New("mount: "+line))
	}
	return errors.Join(append(all, ownLeaks())...)
}

// ownLeaks is the part of leaks that concerns this process alone.
func ownLeaks() error {
	fds, err := os.ReadDir("/proc/self/fd")
	all := []error{err}
	for _, fd := range fds {
		link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if link == "/dev/fuse" || strings.Contains(link, tempPrefix) {
			all = append(all, fmt.Errorf("descriptor %s: %s", fd.Name(), link))
		}
	}
	return errors.Join(append(all, goleak.Find())...)
}

// helpers are what subprocesses of tests do.
var helpers = map[string]func(args []string) error{
	"createTemp": createTempHelper,

	"direct": directHelper,
	"line":   lineHelper,
	"mknod":  mknodHelper,
	"mmap":   mmapHelper,
	"serve":  serveHelper,
}

// helper runs one of helpers in a subprocess.
func helper(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "FUSEFS_TEST_HELPER="+name)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// user runs shell scripts as a user; nil is the user who runs the tests.
type user struct{ uid, gid uint32 }

var nobody = &user{65534, 65534}

// sh runs the script and returns what it wrote to both streams.
func (u *user) sh(t *testing.T, script string) (out string, err error) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "umask 022; "+script)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if u != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid}}
	}
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err = cmd.Run()
	return strings.TrimSpace(b.String()), err
}

// must is sh for a script that has to succeed.
func (u *user) must(t *testing.T, script string) string {
	t.Helper()
	out, err := u.sh(t, script)
	require.NoError(t, err, "%s\n%s", script, out)
	return out
}

// refused is sh for a script that has to fail with the message of errno.
func (u *user) refused(t *testing.T, errno syscall.Errno, script string) {
	t.Helper()
	out, err := u.sh(t, script)
	require.Error(t, err, "%s\n%s", script, out)
	require.Contains(t, strings.ToLower(out), errno.Error(), script)
}

// isRoot reports whether root runs the tests.
func isRoot() bool { return os.Geteuid() == 0 }

// fullMatrix reports whether the caller asks for all of what takes long, as
// scripts/test --all does.
func fullMatrix() bool { return os.Getenv("UPLOADFS_TEST_FULL") != "" }

// sampled reports whether a cell of a matrix is tested. Without a call for the full
// one a diagonal is, in which each row and each column occurs.
func sampled(row, column, rows, columns int) bool {
	return fullMatrix() || row%columns == column || column%rows == row
}

// patience bounds every wait of these tests. A slow machine must not reach it.
const patience = 5 * time.Minute

const tempPrefix = "fusefs-test-" // of the names of all temporary directories

// tempDir is a directory that every user can enter; t.TempDir's are not always.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func write(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(b)
}

func lstat(t *testing.T, name string) *syscall.Stat_t {
	t.Helper()
	fi, err := os.Lstat(name)
	require.NoError(t, err)
	return fi.Sys().(*syscall.Stat_t)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func join(elem ...string) string { return filepath.Join(elem...) }
