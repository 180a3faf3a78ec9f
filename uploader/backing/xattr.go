package backing

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Getxattr reads the extended attribute of rel itself; ok is false where it has
// none, or where the filesystem keeps none.
func (t *Tree) Getxattr(rel, name string) (value string, ok bool) {
	fd, err := t.OpenAt(rel, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	return FgetXattr(fd, name)
}

// FgetXattr is Getxattr of an open descriptor (not an O_PATH one).
func FgetXattr(fd int, name string) (value string, ok bool) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Fgetxattr(fd, name, buf)
		switch {
		case err == unix.ERANGE:
			buf = make([]byte, 64<<10) // the kernel's own limit for a value
			continue
		case err != nil:
			return "", false
		}
		return string(buf[:n]), true
	}
}

// Inherited finds the value of name that holds for rel: its own, or that of the
// nearest directory above it, the tree's root included.
func (t *Tree) Inherited(rel, name string) (value string, ok bool) {
	for {
		if value, ok = t.Getxattr(rel, name); ok || rel == "" {
			return value, ok
		}
		rel = strings.TrimPrefix(path.Dir("/"+rel), "/")
	}
}
