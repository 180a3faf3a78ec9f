//go:build linux

package put

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// holdEnv makes the test binary a process that locks the file which it names,
// prints a line, and keeps the lock until its standard input ends.
const holdEnv = "UPLOADFS_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		if _, err := lockFile(path, false); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// lockElsewhere locks path in a process of its own. end kills that process.
func lockElsewhere(t *testing.T, path string) (pid int, end func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	end = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(end)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)
	return cmd.Process.Pid, end
}

// A POSIX lock would be lost with the first descriptor that is closed.
func TestLockSurvivesACloseInItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := lockFile(path, false)
	require.NoError(t, err)
	again, err := os.Open(path)
	require.NoError(t, err)
	require.NoError(t, again.Close())
	require.Equal(t, os.Getpid(), holder(path))

	_, err = lockFile(path, false)
	require.ErrorIs(t, err, errLocked, "in the same process")
	out, err := runHolder(t, path)
	require.Error(t, err)
	require.Equal(t, "locked\n", out, "in another one: the text of errLocked")

	require.NoError(t, lock.unlock())
	lock, err = lockFile(path, false)
	require.NoError(t, err)
	lock.remove()
	require.NoFileExists(t, path)
}

// runHolder tries to take the lock in a process of its own, to its end.
func runHolder(t *testing.T, path string) (string, error) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	out, err := cmd.Output()
	return string(out), err
}

func TestLockOfADeadProcessIsFree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	pid, end := lockElsewhere(t, path)
	_, err := lockFile(path, false)
	require.ErrorIs(t, err, errLocked)
	require.Equal(t, pid, holder(path))
	end()
	require.FileExists(t, path, "a killed process removes nothing")
	lock, err := lockFile(path, false)
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), holder(path))
	lock.remove()
}

// A process that waits for a file which its holder then removes gets a file that
// still has the name.
func TestLockOfARemovedFileDoesNotCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for range 100 {
		first, err := lockFile(path, false)
		require.NoError(t, err)
		got := make(chan error, 1)
		go func() {
			second, err := lockFile(path, true)
			if err == nil {
				var same bool
				if same, err = names(path, second.file); err == nil && !same {
					err = fmt.Errorf("the lock is on a file without a name")
				}
				second.remove()
			}
			got <- err
		}()
		first.remove()
		require.NoError(t, <-got)
	}
}

func TestHolderOfAStrangeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	require.Zero(t, holder(path))
	require.NoError(t, os.WriteFile(path, []byte("who?"), 0o600))
	require.Zero(t, holder(path))
}
