//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"os"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/backing"
)

// In passthrough (Linux 6.9) the kernel reads and writes the backing file by
// itself: the daemon names it at OPEN and hears of it again at FLUSH. All opens
// of a regular file must do so, those for reading too: a cached open, or a mapping
// left from one, makes the next passthrough open of the inode fail with EIO.

// errNoPassthrough is in the chain of an error that another write path avoids.
var errNoPassthrough = errors.New("the mount cannot pass through")

var _ = (fs.FilePassthroughFder)((*handle)(nil))

// PassthroughFd names the file that the kernel reads and writes. It opens it anew
// with the flags of the caller's open, so a descriptor for reading will do for
// any, and it must be one: the kernel keeps it, and a descriptor for writing
// would hide from [backing.HasWriter] whether anybody else has one.
func (h *handle) PassthroughFd() (int, bool) {
	if h.plain == nil {
		return -1, false
	}
	return int(h.plain.Fd()), true
}

// passThrough opens what PassthroughFd names, if the mount passes through.
func (h *handle) passThrough() (err error) {
	switch {
	case h.node.root.path != Passthrough:
	case h.writable:
		h.plain, err = backing.ReopenReadOnly(h.file)
	default:
		h.plain = h.file
	}
	return err
}

// closePlain closes what passThrough opened.
func (h *handle) closePlain() {
	if h.plain != nil && h.plain != h.file {
		h.plain.Close()
	}
}

// stackDepth is how many filesystems may lie on one another below the mount: one
// more than usual where the backing tree is on overlayfs, which is one itself.
// Where the number is too small, the kernel refuses to pass through.
func stackDepth(tree *backing.Tree) (int, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(tree.Fd(), &st); err != nil {
		return 0, fmt.Errorf("backing tree: %w", err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return 2, nil
	}
	return 1, nil
}

// probe finds out whether the kernel passes through to this tree, by registering
// a file of it: a kernel before 6.9 does not know the request, and without
// CAP_SYS_ADMIN, or with too many filesystems on one another, it refuses. Better
// now than at the first open, after which the mount could not change its mind.
func probe(server *fuse.Server, tree *backing.Tree) error {
	if server.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 {
		return fmt.Errorf("this kernel has no passthrough: it needs Linux 6.9")
	}
	fd, err := tree.OpenAt("", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("passthrough: a file in the backing tree: %w", err)
	}
	f := os.NewFile(uintptr(fd), "probe")
	defer f.Close()
	id, errno := server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	if errno != 0 {
		return fmt.Errorf("the kernel refuses passthrough (it needs CAP_SYS_ADMIN and a backing tree on a local filesystem): %w", errno)
	}
	if errno := server.UnregisterBackingFd(id); errno != 0 {
		return fmt.Errorf("passthrough: %w", errno)
	}
	return nil
}
