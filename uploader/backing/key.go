package backing

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Key names a backing inode whatever names it has: rename, hard links and
// unlink do not change it, and the birth time tells a reused inode number from
// the file that had it before.
type Key struct {
	Ino   uint64
	Birth int64 // nanoseconds since the epoch; 0 where the filesystem keeps none
}

func (k Key) String() string { return fmt.Sprintf("%d.%d", k.Ino, k.Birth) }

// Info is what the uploader and the mount need of a backing file in one statx(2).
type Info struct {
	Key   Key
	Mode  uint32 // type and permissions, as in stat(2)
	Nlink uint32
	Size  int64
	Mtime int64 // nanoseconds since the epoch
	Ctime int64 // the same; unlike mtime it cannot be set
}

// Stamp is what stat(2) shows of the state of a file's content. A write changes
// it; so does a change of metadata, but only in Ctime, or in the times.
type Stamp struct {
	Size         int64 // bytes
	Mtime, Ctime int64 // nanoseconds since the epoch
}

// Stamp is the state of the content.
func (i Info) Stamp() Stamp { return Stamp{i.Size, i.Mtime, i.Ctime} }

// Regular reports whether the file is a regular one; only those are uploaded.
func (i Info) Regular() bool { return i.Mode&unix.S_IFMT == unix.S_IFREG }

// Dir reports whether it is a directory.
func (i Info) Dir() bool { return i.Mode&unix.S_IFMT == unix.S_IFDIR }

// StatFd describes the open descriptor fd.
func StatFd(fd int) (Info, error) {
	return statx(fd, "", atEmptyPath)
}

// StatAt describes name in the directory fd, not following a symlink.
func StatAt(fd int, name string) (Info, error) {
	return statx(fd, name, unix.AT_SYMLINK_NOFOLLOW)
}
