package put

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxHolder bounds what is read of a lock file: a pid and a newline.
const maxHolder = 32

// errLocked means that another process holds the lock.
var errLocked = errors.New("locked")

// fileLock is a locked file that names its holder. The lock ends with the
// process, however that ends.
type fileLock struct{ file *os.File }

// lockFile takes the lock on the file at path and writes this process's pid into
// the file. Where another process holds the lock, it waits or returns errLocked.
//
// A holder removes the file before it unlocks it. So the lock counts only while
// path still names the locked file.
func lockFile(path string, wait bool) (*fileLock, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(file, wait); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		same, err := names(path, file)
		if err == nil && same {
			if err = writeHolder(file); err == nil {
				return &fileLock{file}, nil
			}
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, err
		}
	}
}

// flock locks the whole of an open file for writing.
func flock(file *os.File, wait bool) error {
	cmd := setLock
	if wait {
		cmd = setLockWait
	}
	for {
		err := unix.FcntlFlock(file.Fd(), cmd, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return errLocked
		case err != nil:
			return &fs.PathError{Op: "lock", Path: file.Name(), Err: err}
		default:
			return nil
		}
	}
}

// names reports whether path is a name of the open file.
func names(path string, file *os.File) (bool, error) {
	open, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(open, named), err
}

func writeHolder(file *os.File) error {
	pid := fmt.Appendln(nil, os.Getpid())
	if _, err := file.WriteAt(pid, 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(pid)))
}

// holder reads which process took the lock at path last; 0 if that is unknown.
// Only the lock itself tells whether the process still holds it.
func holder(path string) int {
	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxHolder))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// unlock gives the lock up. The file stays.
func (l *fileLock) unlock() error { return l.file.Close() }

// remove removes the file and gives the lock up. A file that stays is no lock, so
// an error does no harm.
func (l *fileLock) remove() {
	if same, err := names(l.file.Name(), l.file); err == nil && same {
		_ = os.Remove(l.file.Name())
	}
	_ = l.file.Close()
}
