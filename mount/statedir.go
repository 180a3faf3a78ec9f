package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Names in a state directory; doc.go says what they are.
const (
	lockFile     = "lock"
	endpointFile = "endpoint"
	treeDir      = "tree"
	apiDir       = "api"
	embeddedFile = "embedded.json"
	socketFile   = "control.sock"
	logFile      = "uploadfs.log"
	tokenFile    = "http-token"
)

// DefaultStateDir is where the state of a mount lives unless told otherwise: the
// same mount point finds the same directory again.
// mountPoint is absolute and free of symlinks.
func DefaultStateDir(mountPoint string) (string, error) {
	name := Escape(mountPoint)
	if len(name) > syscall.NAME_MAX {
		return "", fmt.Errorf("the mount point's path is too long to name a state directory after: give --state-dir")
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/uploadfs", name), nil
	}
	// The XDG Base Directory Specification ignores relative paths.
	if base := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "uploadfs", name), nil
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("neither XDG_STATE_HOME nor HOME says where the state could live: give --state-dir")
	}
	return filepath.Join(home, ".local", "state", "uploadfs", name), nil
}

// stateDir is a state directory that this process has locked.
type stateDir struct {
	path string
	lock *os.File
}

// openStateDir makes the directory ours: it exists, belongs to this user alone,
// holds nothing foreign, and no other daemon uses it until close.
func openStateDir(path, mountPoint string) (*stateDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w: give another one with --state-dir", err)
	}
	if err := checkStateDir(path); err != nil {
		return nil, err
	}
	lock, err := acquire(filepath.Join(path, lockFile), mountPoint)
	if err != nil {
		return nil, fmt.Errorf("state directory %s: %w", path, err)
	}
	// The tree's root is the mount's root: its mode is what others see. Once it is
	// there, it is its owner's to change.
	tree := filepath.Join(path, treeDir)
	err = os.Mkdir(tree, 0o700)
	if err == nil {
		err = os.Chmod(tree, 0o755)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(fmt.Errorf("state directory: %w", err), lock.Close())
	}
	return &stateDir{path: path, lock: lock}, nil
}

// checkStateDir refuses what must not become a state directory, and takes away
// other people's access to what may. A directory with foreign content is refused:
// --state-dir /tmp would take it away from everybody.
func checkStateDir(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("state directory %s belongs to user %d, not to you (%d): give another one with --state-dir",
			path, st.Uid, os.Geteuid())
	}
	if _, err := os.Lstat(filepath.Join(path, endpointFile)); err != nil {
		entries, err := os.ReadDir(path)
		if err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
		for _, e := range entries {
			// A first mount that failed may have come as far as this.
			if n := e.Name(); n != lockFile && n != treeDir && !strings.HasPrefix(n, logFile) {
				return fmt.Errorf("%s is not empty and no state directory of uploadfs: give another one with --state-dir", path)
			}
		}
	}
	if fi.Mode().Perm() != 0o700 {
		if err := os.Chmod(path, 0o700); err != nil {
			return fmt.Errorf("state directory must be for you alone: %w", err)
		}
	}
	return nil
}

// boundTo reports whether the directory is bound to the endpoint already. One that is
// bound to another endpoint is refused: the IDs in its journal mean nothing elsewhere.
func (d *stateDir) boundTo(e Endpoint) (bool, error) {
	old, err := os.ReadFile(d.file(endpointFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("state directory: %w", err)
	}
	if bound := strings.TrimSuffix(string(old), "\n"); bound != e.String() {
		return false, fmt.Errorf("state directory %s is bound to %s and cannot be used with %s: give another one with --state-dir",
			d.path, Printable(bound), e)
	}
	return true, nil
}

// bind ties the directory to an endpoint, at its first use.
func (d *stateDir) bind(e Endpoint) error {
	return writeFile(d.file(endpointFile), []byte(e.String()+"\n"), 0o600)
}

func (d *stateDir) file(name string) string { return filepath.Join(d.path, name) }

// close gives the directory back.
func (d *stateDir) close() error { return release(d.lock) }

// writeFile replaces a file in one step: a crash leaves the old content or the
// new. The data is synced before the name shows it, as otherwise a power cut
// could leave an empty file.
func writeFile(name string, data []byte, perm fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
