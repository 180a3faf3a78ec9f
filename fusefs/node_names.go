//go:build linux

package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
)

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.makeEntry(ctx, name, mode, unix.AT_REMOVEDIR, out, func(dir int) error {
		return unix.Mkdirat(dir, name, mode)
	})
}

// Mknod makes devices too: the kernel has checked the caller's privilege. It opens
// devices itself, or on a nodev mount not at all.
func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.makeEntry(ctx, name, mode, 0, out, func(dir int) error {
		return unix.Mknodat(dir, name, mode, int(dev))
	})
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.makeEntry(ctx, name, 0, 0, out, func(dir int) error {
		return unix.Symlinkat(target, dir, name)
	})
}

// makeEntry makes name in the directory n with create. If the caller cannot become
// its owner, it is removed by unlinkat with the flags undo.
func (n *node) makeEntry(ctx context.Context, name string, mode uint32, undo int, out *fuse.EntryOut, create func(dir int) error) (*fs.Inode, syscall.Errno) {
	dir, err := n.openPath()
	if err != nil {
		return nil, errnoOf(err)
	}
	defer dir.close()
	if err := create(int(dir)); err != nil {
		return nil, errnoOf(err)
	}
	st, err := n.root.giveToCaller(ctx, dir, int(dir), name, mode)
	if err != nil {
		unix.Unlinkat(int(dir), name, undo)
		return nil, errnoOf(err)
	}
	return n.newChild(ctx, &st, out), 0
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	dir, err := n.openPath()
	if err != nil {
		return nil, errnoOf(err)
	}
	defer dir.close()
	old := nodeOf(target)
	p, err := old.openPath()
	if err != nil {
		return nil, errnoOf(err)
	}
	defer p.close()
	before, err := p.stat()
	if err != nil {
		return nil, errnoOf(err)
	}
	// Through the link in /proc, because AT_EMPTY_PATH wants a capability.
	err = old.changing(p, false, func() error {
		return unix.Linkat(unix.AT_FDCWD, p.link(), int(dir), name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return nil, errnoOf(err)
	}
	st, err := p.stat()
	if err != nil {
		return nil, errnoOf(err)
	}
	switch {
	case st.fileType() != unix.S_IFREG:
	case before.Nlink == 0:
		n.root.orphans.link(old)
		n.root.Uploader.Renamed("", n.childPath(name), st.key(), false) // from O_TMPFILE
	default:
		n.root.Uploader.Linked(st.key(), n.childPath(name))
	}
	return n.newChild(ctx, &st, out), 0
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	dir, err := n.openPath()
	if err != nil {
		return errnoOf(err)
	}
	defer dir.close()
	victim, err := n.openVictim(dir, name)
	if err != nil {
		return errnoOf(err)
	}
	err = n.root.Uploader.ChangeMetadata(func() error { return unix.Unlinkat(int(dir), name, 0) }, victim.metadata(n.childPath(name), 2)...)
	if err != nil {
		return errnoOf(err)
	}
	n.root.nameRemoved(victim, n.childPath(name))
	return 0
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	dir, err := n.openPath()
	if err != nil {
		return errnoOf(err)
	}
	defer dir.close()
	if _, err := n.openVictim(dir, name); err != nil {
		return errnoOf(err)
	}
	return errnoOf(unix.Unlinkat(int(dir), name, unix.AT_REMOVEDIR))
}

func (n *node) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return syscall.EINVAL // RENAME_WHITEOUT is for filesystems stacked on this one
	}
	to := nodeOf(newParent)
	oldDir, err := n.openPath()
	if err != nil {
		return errnoOf(err)
	}
	defer oldDir.close()
	newDir, err := to.openPath()
	if err != nil {
		return errnoOf(err)
	}
	defer newDir.close()

	source, err := openName(oldDir, name)
	if err != nil {
		return errnoOf(err)
	}
	defer source.close()
	st, err := source.stat()
	if err != nil {
		return errnoOf(err)
	}
	victim, exchanged := pathFD(-1), pathFD(-1)
	switch {
	case flags == 0:
		if victim, err = to.openVictim(newDir, newName); err != nil && err != unix.ENOENT {
			return errnoOf(err)
		}
	case flags&unix.RENAME_EXCHANGE != 0:
		if exchanged, err = openName(newDir, newName); err != nil {
			return errnoOf(err)
		}
		defer exchanged.close()
	}
	defer n.root.Uploader.Renaming()()
	// The paths are those from before: go-fuse's tree changes after this.
	oldPath, newPath := n.childPath(name), to.childPath(newName)
	changes := append(source.metadata(oldPath, 1), victim.metadata(newPath, 2)...)
	changes = append(changes, exchanged.metadata(newPath, 1)...)
	err = n.root.Uploader.ChangeMetadata(func() error {
		return unix.Renameat2(int(oldDir), name, int(newDir), newName, uint(flags))
	}, changes...)
	if err != nil {
		return errnoOf(err)
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		n.root.Uploader.Exchanged(oldPath, newPath)
		return 0
	}
	if victim >= 0 {
		n.root.nameRemoved(victim, newPath)
	}
	switch st.fileType() {
	case unix.S_IFREG, unix.S_IFDIR:
		n.root.Uploader.Renamed(oldPath, newPath, st.key(), st.fileType() == unix.S_IFDIR)
	}
	return 0
}

// openVictim opens what is about to lose the name in the directory n, opened as dir.
// The descriptor is the orphans'.
func (n *node) openVictim(dir pathFD, name string) (pathFD, error) {
	p, err := openName(dir, name)
	if err != nil {
		return -1, err
	}
	var known *node
	if child := n.GetChild(name); child != nil {
		if st, err := p.stat(); err == nil && st.key() == nodeOf(child).key() {
			known = nodeOf(child)
		}
	}
	n.root.orphans.add(known, p)
	return p, nil
}

// openName finds the inode of a name in the directory dir. The caller closes it.
func openName(dir pathFD, name string) (pathFD, error) {
	fd, err := unix.Openat(int(dir), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return pathFD(fd), err
}

// metadata is the change of a regular file at rel with at least so many names, for
// [uploader.Uploader.ChangeMetadata]; none for another. A negative descriptor is no
// file. One that loses its last name has no record any more.
func (p pathFD) metadata(rel string, names uint32) []uploader.MetadataChange {
	if p < 0 {
		return nil
	}
	st, err := p.stat()
	if err != nil || st.fileType() != unix.S_IFREG || st.Nlink < names {
		return nil
	}
	return []uploader.MetadataChange{{Key: st.key(), Path: rel, Stat: p.info}}
}

// nameRemoved tells the uploader that a file has lost the name rel.
func (r *root) nameRemoved(victim pathFD, rel string) {
	if st, err := victim.stat(); err == nil && st.fileType() == unix.S_IFREG {
		r.Uploader.Removed(st.key(), rel, st.Nlink == 0)
	}
}
