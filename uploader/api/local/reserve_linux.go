package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve allocates the first n bytes of f, where the filesystem can, and leaves its size alone. Without it the space
// is found while writing, a page at a time; a disk that is full shows there as well.
func reserve(f *os.File, n int64) {
	if n > 0 {
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
	}
}
