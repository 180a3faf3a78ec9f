//go:build linux

package fusefs_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"github.com/stretchr/testify/require"
)

// TestPosix runs go-fuse's own conformance tests, each on a mount of its own.
func TestPosix(t *testing.T) {
	for name, test := range posixtest.All {
		if name == "FcntlFlockLocksFile" {
			continue // expects two fcntl locks of one process to conflict, which they never do
		}
		t.Run(name, func(t *testing.T) { test(t, newMount(t).dir) })
	}
}

// TestAsOrdinaryUser runs the tests of files, attributes, mounts and tools again as a
// user without privilege: fusermount3 mounts, and the daemon can give no file away.
func TestAsOrdinaryUser(t *testing.T) {
	if !isRoot() {
		m := newMount(t)
		write(t, join(m.dir, "f"), "mine")
		require.EqualValues(t, os.Geteuid(), lstat(t, join(m.tree, "f")).Uid)
		return
	}
	dir := tempDir(t)
	require.NoError(t, os.Chmod(dir, 0o777))
	program, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(join(dir, "tests"), program, 0o755))

	cmd := exec.Command(join(dir, "tests"), "-test.timeout=5m", "-test.run=^Test(Posix|Attrs|Mount|Tool)")
	cmd.Dir = dir
	// Not the write path under test: ordinary users have no passthrough.
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir, "UPLOADFS_TEST_WRITE_PATH=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody.uid, Gid: nobody.gid}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
