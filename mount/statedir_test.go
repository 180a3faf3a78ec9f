package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func isRoot() bool { return os.Geteuid() == 0 }

func TestStateDirIsPrivateAndLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state")
	d, err := openStateDir(path, "/mnt/x")
	require.NoError(t, err)
	for dir, mode := range map[string]os.FileMode{path: 0o700, filepath.Dir(path): 0o700, d.file(treeDir): 0o755} {
		fi, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, mode, fi.Mode().Perm(), dir)
	}

	_, err = openStateDir(path, "/mnt/y")
	require.ErrorContains(t, err, fmt.Sprintf("in use by process %d for /mnt/x", os.Getpid()))

	require.NoError(t, d.close())
	pid, point := holder(d.file(lockFile))
	require.Zero(t, pid)
	require.Empty(t, point)
	d, err = openStateDir(path, "/mnt/y")
	require.NoError(t, err)
	require.NoError(t, d.close())
}

func TestStateDirKeepsTheTreesMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d, err := openStateDir(path, "/mnt/x")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(d.file(treeDir), 0o711))
	require.NoError(t, d.close())
	d, err = openStateDir(path, "/mnt/x")
	require.NoError(t, err)
	defer d.close()
	fi, err := os.Stat(d.file(treeDir))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o711), fi.Mode().Perm())
}

func TestStateDirThatIsSomethingElse(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "letter"), nil, 0o600))
	_, err := openStateDir(dir, "/mnt/x")
	require.ErrorContains(t, err, "no state directory of uploadfs: give another one with --state-dir")
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), fi.Mode().Perm(), "it was left alone")

	_, err = openStateDir(filepath.Join(dir, "letter"), "/mnt/x")
	require.ErrorContains(t, err, "--state-dir")

	// Root finds another user's directory, other users find root's.
	foreign := "/"
	if isRoot() {
		foreign = filepath.Join(t.TempDir(), "theirs")
		require.NoError(t, os.Mkdir(foreign, 0o700))
		require.NoError(t, os.Chown(foreign, 65534, 65534))
	}
	_, err = openStateDir(foreign, "/mnt/x")
	require.ErrorContains(t, err, "not to you")
}

func TestBind(t *testing.T) {
	d, err := openStateDir(filepath.Join(t.TempDir(), "state"), "/mnt/x")
	require.NoError(t, err)
	defer d.close()
	for _, want := range []bool{false, true} {
		bound, err := d.boundTo(Endpoint{})
		require.NoError(t, err)
		require.Equal(t, want, bound)
		require.NoError(t, d.bind(Endpoint{}))
	}
	_, err = d.boundTo(Endpoint{BaseURL: "https://a/v1", Project: "p"})
	require.ErrorContains(t, err, "bound to embedded and cannot be used with https://a/v1 project p")
	b, err := os.ReadFile(d.file(endpointFile))
	require.NoError(t, err)
	require.Equal(t, "embedded\n", string(b))
	left, err := filepath.Glob(d.file(".*"))
	require.NoError(t, err)
	require.Empty(t, left, "no temporary file stays")
}

func TestHolderOfStrangeFiles(t *testing.T) {
	dir := t.TempDir()
	pid, point := holder(filepath.Join(dir, "absent"))
	require.Zero(t, pid)
	require.Empty(t, point)
	name := filepath.Join(dir, "lock")
	require.NoError(t, os.WriteFile(name, []byte("12\n/mnt/a\nb\n"), 0o600))
	pid, point = holder(name)
	require.Equal(t, 12, pid)
	require.Equal(t, "/mnt/a\nb", point, "a mount point may hold a newline")
}
