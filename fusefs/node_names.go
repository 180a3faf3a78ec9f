//go:build linux

package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, mode, unix.AT_REMOVEDIR, out, func(dir int) error {
		return unix.Mkdirat(dir, name, mode)
	})
}

// Mknod makes devices too: the kernel has asked whether the caller may, and
// opens them itself, or not at all on a nodev mount.
func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, mode, 0, out, func(dir int) error {
		return unix.Mknodat(dir, name, mode, int(dev))
	})
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, 0, 0, out, func(dir int) error {
		return unix.Symlinkat(target, dir, name)
	})
}

// make makes name in the directory n with create, and takes it away again
// (unlinkat with the flags undo) if it cannot become the caller's.
func (n *node) make(ctx context.Context, name string, mode uint32, undo int, out *fuse.EntryOut, create func(dir int) error) (*fs.Inode, syscall.Errno) {
	dir, err := n.pin()
	if err != nil {
		return nil, errnoOf(err)
	}
	defer dir.close()
	if err := create(int(dir)); err != nil {
		return nil, errnoOf(err)
	}
	st, err := n.root.own(ctx, dir, int(dir), name, mode)
	if err != nil {
		unix.Unlinkat(int(dir), name, undo)
		return nil, errnoOf(err)
	}
	return n.enter(ctx, &st, out), 0
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	dir, err := n.pin()
	if err != nil {
		return nil, errnoOf(err)
	}
	defer dir.close()
	old := nodeOf(target)
	p, err := old.pin()
	if err != nil {
		return nil, errnoOf(err)
	}
	defer p.close()
	before, err := p.stat()
	if err != nil {
		return nil, errnoOf(err)
	}
	// Through the link in /proc, because AT_EMPTY_PATH wants a capability.
	if err := unix.Linkat(unix.AT_FDCWD, p.link(), int(dir), name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return nil, errnoOf(err)
	}
	st, err := p.stat()
	if err != nil {
		return nil, errnoOf(err)
	}
	switch {
	case st.kind() != unix.S_IFREG:
	case before.Nlink == 0:
		n.root.Uploader.Renamed("", n.below(name), st.key(), false) // from O_TMPFILE
	default:
		n.root.Uploader.Linked(st.key(), n.below(name))
	}
	return n.enter(ctx, &st, out), 0
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	dir, err := n.pin()
	if err != nil {
		return errnoOf(err)
	}
	defer dir.close()
	victim, err := n.root.victim(dir, name)
	if err != nil {
		return errnoOf(err)
	}
	if err := unix.Unlinkat(int(dir), name, 0); err != nil {
		return errnoOf(err)
	}
	n.root.removed(victim, n.below(name))
	return 0
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	dir, err := n.pin()
	if err != nil {
		return errnoOf(err)
	}
	defer dir.close()
	return errnoOf(unix.Unlinkat(int(dir), name, unix.AT_REMOVEDIR))
}

func (n *node) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return syscall.EINVAL // RENAME_WHITEOUT is for filesystems stacked on this one
	}
	to := nodeOf(newParent)
	oldDir, err := n.pin()
	if err != nil {
		return errnoOf(err)
	}
	defer oldDir.close()
	newDir, err := to.pin()
	if err != nil {
		return errnoOf(err)
	}
	defer newDir.close()

	st, err := statAt(int(oldDir), name)
	if err != nil {
		return errnoOf(err)
	}
	victim := pin(-1)
	if flags == 0 {
		if victim, err = n.root.victim(newDir, newName); err != nil && err != unix.ENOENT {
			return errnoOf(err)
		}
	}
	if err := unix.Renameat2(int(oldDir), name, int(newDir), newName, uint(flags)); err != nil {
		return errnoOf(err)
	}
	// The paths are those from before: go-fuse's tree changes after this.
	oldPath, newPath := n.below(name), to.below(newName)
	if flags&unix.RENAME_EXCHANGE != 0 {
		n.root.Uploader.Exchanged(oldPath, newPath)
		return 0
	}
	if victim >= 0 {
		n.root.removed(victim, newPath)
	}
	switch st.kind() {
	case unix.S_IFREG, unix.S_IFDIR:
		n.root.Uploader.Renamed(oldPath, newPath, st.key(), st.kind() == unix.S_IFDIR)
	}
	return 0
}

// victim pins a file that is about to lose a name. The descriptor goes to the
// grave: freeing a large file's blocks takes long and must not hold names up.
func (r *root) victim(dir pin, name string) (pin, error) {
	fd, err := unix.Openat(int(dir), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	r.grave.add(fd)
	return pin(fd), nil
}

// removed tells the uploader that a file has lost the name rel.
func (r *root) removed(victim pin, rel string) {
	if st, err := victim.stat(); err == nil && st.kind() == unix.S_IFREG {
		r.Uploader.Removed(st.key(), rel, st.Nlink == 0)
	}
}
