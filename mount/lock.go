package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// acquire takes the lock on a file and writes into it who holds it. flock(2)
// belongs to the open file, so it ends with the process however that dies, and
// a stale file is no lock.
func acquire(name, mountPoint string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		pid, point := holder(name)
		return nil, fmt.Errorf("in use by process %d for %s: unmount that and wait for its end, or give another one with --state-dir",
			pid, Printable(point))
	}
	if err == nil {
		err = errors.Join(f.Truncate(0), writeHolder(f, mountPoint))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func writeHolder(f *os.File, mountPoint string) error {
	_, err := fmt.Fprintf(f, "%d\n%s\n", os.Getpid(), mountPoint)
	return err
}

// holder reads who wrote the lock last. Whether they still hold it only the lock
// itself can tell. The file may be another user's: no FIFO is waited for, and no
// more is read than a pid and a path take.
func holder(name string) (pid int, mountPoint string) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return 0, ""
	}
	first, second, _ := strings.Cut(string(b), "\n")
	pid, _ = strconv.Atoi(first)
	return pid, strings.TrimSuffix(second, "\n")
}

// release gives the lock up. The file stays: removing it would let two daemons
// lock two files of the same name.
func release(f *os.File) error {
	return errors.Join(f.Truncate(0), f.Close())
}
