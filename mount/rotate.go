package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// How much log is kept.
const (
	logSize = 10_000_000 // bytes of one file
	logKeep = 5          // older files: name.1 is the youngest
)

// rotating is a file that starts anew when it has grown to size bytes, keeping
// so many older ones. A write is never split over two files. It may be used
// concurrently.
type rotating struct {
	name string
	size int64
	keep int
	// opened is told of each file that writes go to from now on, before the
	// first write. nil is fine.
	opened func(*os.File)

	mu   sync.Mutex // guards the following
	file *os.File
	n    int64 // bytes in file
}

// openRotating goes on with the file as it is.
func openRotating(name string, size int64, keep int, opened func(*os.File)) (*rotating, error) {
	r := &rotating{name: name, size: size, keep: keep, opened: opened}
	f, err := openAppend(name)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	r.use(f, fi.Size())
	return r, nil
}

func openAppend(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

func (r *rotating) use(f *os.File, size int64) {
	r.file, r.n = f, size
	if r.opened != nil {
		r.opened(f)
	}
}

func (r *rotating) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var rotateErr error
	if r.n > 0 && r.n+int64(len(p)) > r.size {
		// A log that cannot be rotated (a full disk) is still written to.
		rotateErr = r.rotate()
	}
	n, err := r.file.Write(p)
	r.n += int64(n)
	return n, errors.Join(err, rotateErr)
}

// rotate moves every file up by one, the oldest falling out. The new file is made
// first: where that is impossible nothing has moved, and the old one goes on.
func (r *rotating) rotate() error {
	f, err := openAppend(r.name + ".new")
	if err != nil {
		return err
	}
	for i := r.keep; i >= 0; i-- {
		if err = os.Rename(r.generation(i-1), r.generation(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, f.Close())
		}
	}
	old := r.file
	r.use(f, 0)
	return old.Close()
}

// generation names the i-th older file: 0 is the current one, -1 the next.
func (r *rotating) generation(i int) string {
	switch i {
	case -1:
		return r.name + ".new"
	case 0:
		return r.name
	}
	return fmt.Sprintf("%s.%d", r.name, i)
}

func (r *rotating) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Close()
}
