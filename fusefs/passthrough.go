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

// In passthrough (Linux 6.9) the kernel reads and writes the backing file by itself:
// the daemon names it at OPEN, and its next request is FLUSH. All opens of a regular
// file must pass through, those for reading too: a cached open, or a mapping left
// from one, makes the next passthrough open of the inode fail with EIO.

// errNoPassthrough is in the chain of an error that another write path avoids.
var errNoPassthrough = errors.New("the mount cannot pass through")

var _ = (fs.FilePassthroughFder)((*handle)(nil))

// PassthroughFd names the file that the kernel reads and writes. The kernel opens it
// anew with the flags of the caller's open, so a descriptor for reading is enough.
// It must be one: the kernel keeps it, and [backing.HasWriter] would take a
// descriptor for writing for another program's.
func (h *handle) PassthroughFd() (int, bool) {
	if h.readOnly == nil {
		return -1, false
	}
	return int(h.readOnly.Fd()), true
}

// openReadOnly opens what PassthroughFd names, if the mount passes through.
func (h *handle) openReadOnly() (err error) {
	switch {
	case h.node.root.path != Passthrough:
	case h.writable:
		h.readOnly, err = backing.ReopenReadOnly(h.file)
	default:
		h.readOnly = h.file
	}
	return err
}

// closeReadOnly closes what openReadOnly opened.
func (h *handle) closeReadOnly() {
	if h.readOnly != nil && h.readOnly != h.file {
		h.readOnly.Close()
	}
}

// stackDepth is how many stacked filesystems may lie below the mount: one more than
// usual where the backing tree is on overlayfs, which is stacked itself. If the
// number is too small, the kernel refuses to pass through.
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

// probe finds out whether the kernel passes through to this tree: it registers a
// file of the tree. A kernel before 6.9 does not know the request. Without
// CAP_SYS_ADMIN, or with too many stacked filesystems, the kernel refuses it. After
// the first open the mount could not fall back to write-back any more.
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
