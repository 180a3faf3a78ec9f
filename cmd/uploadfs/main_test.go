//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
)

// The tests of this package run the built command as people do: as root and as
// an ordinary user, through real mounts. Started by root, they run in a mount
// namespace of their own, in which /dev/fuse is open to users as on any desktop,
// and whose mounts end with it.

// nsEnv marks the process that is in the namespace.
const nsEnv = "UPLOADFS_TEST_NAMESPACE"

var (
	binary string // the built command
	base   string // where tests keep their files; any user may look in
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if dir := os.Getenv(writerEnv); dir != "" {
		if err := writeAndWait(dir); err != nil {
			return complain(err)
		}
		return 0
	}
	if os.Geteuid() == 0 && os.Getenv(nsEnv) == "" {
		return inNamespace()
	}
	var err error
	if base, err = os.MkdirTemp("", "uploadfs-e2e-"); err != nil {
		return complain(err)
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil {
		return complain(err)
	}
	if os.Geteuid() == 0 {
		if err := leaveOthers(); err != nil {
			return complain(err)
		}
		undo, err := openFUSE()
		if err != nil {
			return complain(err)
		}
		defer undo()
	}
	binary = filepath.Join(base, "uploadfs")
	if err := build(); err != nil {
		return complain(err)
	}
	// The race detector sleeps a second at every exit unless told not to.
	os.Setenv("GORACE", "atexit_sleep_ms=0 halt_on_error=1")
	for _, name := range []string{"OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"} {
		os.Unsetenv(name)
	}
	code := m.Run()
	if left := leaks(); len(left) > 0 {
		return complain(fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	}
	return code
}

// build builds the command: with the race detector in the full matrix alone. The
// detector trebles what a start of the command costs, the tests start over a thousand,
// and those of the packages below have it always.
func build() error {
	args := []string{"build", "-o", binary, "."}
	if fullMatrix() {
		args = slices.Insert(args, 1, "-race")
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// fullMatrix reports whether the caller asks for all of what takes long, as
// scripts/test --all does.
func fullMatrix() bool { return os.Getenv("UPLOADFS_TEST_FULL") != "" }

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// inNamespace runs the tests again in a mount namespace of their own.
func inNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), nsEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return complain(err)
	}
	return 0
}

// leaveOthers gives up this namespace's copies of mounts that were there before.
// While a copy lasts, its daemon, which another test runs, cannot see its mount end.
func leaveOthers() error {
	list, err := procfs.Mounts()
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.Type == fusefs.FSType {
			if err := unix.Unmount(m.Point, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", m.Point, err)
			}
		}
	}
	return nil
}

// openFUSE puts a device that every user may open in the place of /dev/fuse, in
// this namespace only. It is made on a filesystem of its own because others may
// be mounted nodev.
func openFUSE() (undo func(), err error) {
	dir := filepath.Join(base, "dev")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return nil, fmt.Errorf("mount a tmpfs: %w", err)
	}
	device := filepath.Join(dir, "fuse")
	err = errors.Join(
		unix.Mknod(device, unix.S_IFCHR, int(unix.Mkdev(10, 229))),
		os.Chmod(device, 0o666),
		unix.Mount(device, "/dev/fuse", "", unix.MS_BIND, ""),
	)
	return func() {
		unix.Unmount("/dev/fuse", 0)
		unix.Unmount(dir, unix.MNT_DETACH)
	}, err
}

// leaks names mounts and processes that the tests have left.
func leaks() []string {
	var left []string
	list, err := procfs.Mounts()
	if err != nil {
		return []string{err.Error()}
	}
	for _, m := range list {
		if m.Type == fusefs.FSType && strings.HasPrefix(m.Point, base) {
			left = append(left, "mount "+m.Point)
		}
	}
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		// A zombie has no exe any more.
		if target, err := os.Readlink(exe); err == nil && target == binary {
			left = append(left, "process "+filepath.Base(filepath.Dir(exe)))
		}
	}
	return left
}
