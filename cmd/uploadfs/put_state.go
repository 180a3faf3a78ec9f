package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

// putDir is the state directory of put. Unlike a mount's it is shared by all puts
// of a user, at once too:
//
//	lock       byte 0 while a journal is being opened, one other byte per file that
//	           is being sent
//	spool/     what came from standard input
//	ENDPOINT/  the journal of what was sent there
type putDir struct {
	path string
	lock *os.File
}

// putName is the directory among those of the mounts. No mount's is called so:
// '@' is escaped in their names.
const putName = "@put"

const (
	partial     = ".partial"
	partialLife = 24 * time.Hour // after which what a killed put was reading is removed
)

// openPutDir makes the directory, for this user alone.
func openPutDir(path string) (*putDir, error) {
	var err error
	if path == "" {
		path, err = defaultPutDir()
	} else {
		path, err = filepath.Abs(path)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(path, "spool"), 0o700)
	}
	if err == nil {
		err = os.Chmod(path, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w: give another one with --state-dir", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &putDir{path, lock}, nil
}

// defaultPutDir is where the state directory is unless told otherwise.
func defaultPutDir() (string, error) {
	mounts, err := mount.DefaultStateDir("/")
	return filepath.Join(filepath.Dir(mounts), putName), err
}

// close gives up all locks.
func (d *putDir) close() { d.lock.Close() }

// open opens the journal for an endpoint: IDs mean nothing elsewhere.
func (d *putDir) open(e mount.Endpoint, o uploader.Options) (*uploader.Uploader, error) {
	name := mount.Escape(e.String())
	if len(name) > syscall.NAME_MAX {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	o.StateDir = filepath.Join(d.path, name)
	if err := os.Mkdir(o.StateDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	// Two processes must not make the schema at once.
	if err := d.setLock(0, unix.F_WRLCK, true); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	up, err := uploader.Open(o)
	return up, errors.Join(err, d.setLock(0, unix.F_UNLCK, false))
}

// lockFile keeps other processes from putting the same file until unlock.
func (d *putDir) lockFile(fi fs.FileInfo) (unlock func(), err error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return func() {}, nil
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d", st.Dev, st.Ino)
	off := int64(h.Sum64()>>2) + 1
	err = d.setLock(off, unix.F_WRLCK, false)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("process %d is already sending it: wait for that, or end it and try again", d.lockHolder(off))
	case err != nil:
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return func() {
		// It ends with the process at the latest.
		_ = d.setLock(off, unix.F_UNLCK, false)
	}, nil
}

// setLock changes the lock of one byte (fcntl(2)). It is the process's own.
func (d *putDir) setLock(off int64, kind int16, wait bool) error {
	cmd := unix.F_SETLK
	if wait {
		cmd = unix.F_SETLKW
	}
	for {
		err := unix.FcntlFlock(d.lock.Fd(), cmd, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: off, Len: 1})
		if err != unix.EINTR {
			return err
		}
	}
}

func (d *putDir) lockHolder(off int64) int {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: off, Len: 1}
	if err := unix.FcntlFlock(d.lock.Fd(), unix.F_GETLK, &l); err != nil {
		return 0
	}
	return int(l.Pid)
}

// spool copies a stream to a file, and not more of it than shows that it is too
// large.
func (d *putDir) spool(ctx context.Context, r io.Reader) (path string, err error) {
	dir := filepath.Join(d.path, "spool")
	removeOld(dir)
	f, err := os.CreateTemp(dir, "stdin-*"+partial)
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

// removeOld removes what killed puts had not read to its end.
func removeOld(dir string) {
	left, err := filepath.Glob(filepath.Join(dir, "*"+partial))
	if err != nil {
		return
	}
	for _, name := range left {
		if fi, err := os.Stat(name); err == nil && time.Since(fi.ModTime()) > partialLife {
			os.Remove(name) // if it cannot be, it is in nobody's way
		}
	}
}
