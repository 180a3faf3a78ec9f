package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve allocates the first n bytes of f, if the filesystem can, and does not change its size. Without it the
// filesystem allocates while writing, a page at a time. A full disk is then reported by the write.
func reserve(f *os.File, n int64) {
	if n > 0 {
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
	}
}
