package put

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

// Dir is the state directory of put. All puts of a user share it, also at the
// same time:
//
//	sending/   one locked file per file that is being sent
//	spool/     copies of standard input
//	ENDPOINT/  the journal of what was sent there
//
// What it makes is for this user alone. It may be used concurrently.
type Dir struct{ path string }

// Names in the directory. No endpoint's directory is called so: an endpoint's
// name holds a colon.
const (
	sendingDir = "sending"
	spoolDir   = "spool"
)

// openLock is a file of a journal's directory: locked while the journal is opened.
const openLock = "lock"

const (
	partial     = ".partial"
	partialLife = 24 * time.Hour // then the copy that a killed put left incomplete is removed
)

// OpenDir opens the state directory at path and makes what is missing. It changes
// no directory that is there, and refuses one in which other users could replace
// what put makes.
func OpenDir(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w: give another one with --state-dir", err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if why := unsafeDir(fi.Mode(), owner(fi), os.Geteuid()); why != "" {
		return nil, fmt.Errorf("state directory %s %s: give another one with --state-dir", path, why)
	}
	d := &Dir{path}
	for _, sub := range []string{sendingDir, spoolDir} {
		if err := d.makePrivate(sub); err != nil {
			return nil, err
		}
	}
	d.removeAbandoned()
	return d, nil
}

// unsafeDir says why other users could replace what the user uid makes in a directory;
// "" if they cannot. In a sticky directory each user can rename and remove only
// what is their own.
func unsafeDir(mode fs.FileMode, owner, uid int) string {
	switch {
	case owner != uid && owner != 0:
		return fmt.Sprintf("belongs to user %d, not to you (%d)", owner, uid)
	case mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0:
		return "can be written to by other users"
	}
	return ""
}

// owner is the user whom a file belongs to.
func owner(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return os.Geteuid()
}

// makePrivate makes a directory in d, unless it is there for this user alone.
func (d *Dir) makePrivate(name string) error {
	path := filepath.Join(d.path, name)
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		var fi fs.FileInfo
		if fi, err = os.Lstat(path); err == nil && (!fi.IsDir() || owner(fi) != os.Geteuid() || fi.Mode().Perm()&0o077 != 0) {
			return fmt.Errorf("state directory: %s is not a directory for you alone: give another one with --state-dir", path)
		}
	}
	if err != nil {
		return fmt.Errorf("state directory: %w: give another one with --state-dir", err)
	}
	return nil
}

// OpenUploader opens the journal called name, which stands for one endpoint: IDs
// mean nothing elsewhere. The caller sets the rest of o and closes the Uploader.
func (d *Dir) OpenUploader(name string, o uploader.Options) (*uploader.Uploader, error) {
	if len(name) > syscall.NAME_MAX {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	if err := d.makePrivate(name); err != nil {
		return nil, err
	}
	o.StateDir = filepath.Join(d.path, name)
	// Two processes must not make the schema at once.
	lock, err := lockFile(filepath.Join(o.StateDir, openLock), true)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	up, err := uploader.Open(o)
	return up, errors.Join(err, lock.unlock())
}

// lockSending keeps other puts from sending the same file until unlock. Its
// error names the process that is sending it.
func (d *Dir) lockSending(fi fs.FileInfo) (unlock func(), err error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return func() {}, nil
	}
	path := filepath.Join(d.path, sendingDir, fmt.Sprintf("%d-%d", st.Dev, st.Ino))
	lock, err := lockFile(path, false)
	switch {
	case errors.Is(err, errLocked):
		return nil, fmt.Errorf("process %d is already sending it: wait for that, or end it and try again", holder(path))
	case err != nil:
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return lock.remove, nil
}

// spool copies a stream to a file and returns its path. It copies one byte above
// the largest Upload, which shows that the stream is too large.
func (d *Dir) spool(ctx context.Context, r io.Reader) (path string, err error) {
	f, err := os.CreateTemp(filepath.Join(d.path, spoolDir), "stdin-*"+partial)
	if err != nil {
		return "", err
	}
	copied := make(chan error, 1)
	go func() { // a read of a terminal or a pipe cannot be ended: it ends with its input, or the process
		_, err := io.Copy(f, io.LimitReader(r, api.MaxUpload+1))
		copied <- err
	}()
	select {
	case err = <-copied:
	case <-ctx.Done():
		err = errors.New("stopped before its end")
	}
	path = strings.TrimSuffix(f.Name(), partial)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return path, nil
}

// removeAbandoned removes what killed puts left: incomplete copies of standard
// input, and lock files without a holder. What cannot be removed does no harm.
func (d *Dir) removeAbandoned() {
	copies, _ := filepath.Glob(filepath.Join(d.path, spoolDir, "*"+partial))
	for _, name := range copies {
		if fi, err := os.Stat(name); err == nil && time.Since(fi.ModTime()) > partialLife {
			_ = os.Remove(name)
		}
	}
	locks, _ := filepath.Glob(filepath.Join(d.path, sendingDir, "*"))
	for _, name := range locks {
		if lock, err := lockFile(name, false); err == nil {
			lock.remove()
		}
	}
}
