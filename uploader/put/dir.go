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
//	lock       locked while a journal is being opened
//	sending/   one locked file per file that is being sent
//	spool/     copies of standard input
//	ENDPOINT/  the journal of what was sent there
//
// It may be used concurrently.
type Dir struct{ path string }

// Names in the directory. No endpoint's directory is called so: an endpoint's
// name holds a colon.
const (
	openLock   = "lock"
	sendingDir = "sending"
	spoolDir   = "spool"
)

const (
	partial     = ".partial"
	partialLife = 24 * time.Hour // then the copy that a killed put left incomplete is removed
)

// OpenDir opens the state directory at path and makes what is missing, for this
// user alone.
func OpenDir(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	for _, sub := range []string{sendingDir, spoolDir} {
		if err == nil {
			err = os.MkdirAll(filepath.Join(path, sub), 0o700)
		}
	}
	if err == nil {
		err = os.Chmod(path, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w: give another one with --state-dir", err)
	}
	d := &Dir{path}
	d.removeAbandoned()
	return d, nil
}

// OpenUploader opens the journal called name, which stands for one endpoint: IDs
// mean nothing elsewhere. The caller sets the rest of o and closes the Uploader.
func (d *Dir) OpenUploader(name string, o uploader.Options) (*uploader.Uploader, error) {
	if len(name) > syscall.NAME_MAX {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	o.StateDir = filepath.Join(d.path, name)
	if err := os.Mkdir(o.StateDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	// Two processes must not make the schema at once.
	lock, err := lockFile(filepath.Join(d.path, openLock), true)
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
