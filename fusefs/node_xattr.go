//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"uploadfs/uploader"
)

// ownAttr cuts the prefix from the name of one of our attributes. They exist where
// user.* attributes do, on regular files and directories.
func (n *node) ownAttr(attr string) (name string, ok bool) {
	if kind := n.Mode(); kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return "", false
	}
	return strings.CutPrefix(attr, uploader.AttrPrefix)
}

// unsupportedAttr reports whether no caller may read or set the attribute here. The
// kernel leaves the permission for system.* to the filesystem, and a daemon that
// runs as root has it for every caller. Nor does the kernel enforce an ACL that it
// does not know.
func unsupportedAttr(attr string) bool { return strings.HasPrefix(attr, "system.") }

// status is what the uploader knows of the file, and its path; nil for a directory,
// of which it knows nothing.
func (n *node) status() (st *uploader.Status, rel string) {
	rel, _ = n.path()
	if n.Mode() == unix.S_IFREG {
		st = n.root.Uploader.Status(n.key(), rel)
	}
	return st, rel
}

func (n *node) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	if unsupportedAttr(attr) {
		return 0, syscall.ENOTSUP
	}
	if name, ok := n.ownAttr(attr); ok {
		st, rel := n.status()
		value, ok := n.root.Uploader.Attr(st, rel, name)
		if !ok {
			return 0, syscall.ENODATA
		}
		return fillValue(dest, []byte(value))
	}
	p, err := n.openPath()
	if err != nil {
		return 0, errnoOf(err)
	}
	defer p.close()
	size, err := unix.Getxattr(p.link(), attr, dest)
	return uint32(max(size, 0)), errnoOf(err)
}

func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	p, err := n.openPath()
	if err != nil {
		return 0, errnoOf(err)
	}
	defer p.close()
	names, err := p.listxattr()
	if err != nil && err != unix.ENOTSUP {
		return 0, errnoOf(err)
	}
	// A writable attribute of ours is among them where it is set, but is listed
	// where it has a value, which may be inherited.
	names = slices.DeleteFunc(names, func(attr string) bool {
		return unsupportedAttr(attr) || strings.HasPrefix(attr, uploader.AttrPrefix)
	})
	if _, ok := n.ownAttr(uploader.AttrPrefix); ok {
		st, rel := n.status()
		for _, name := range n.root.Uploader.ListAttrs(st, rel) {
			names = append(names, uploader.AttrPrefix+name)
		}
	}
	var list []byte
	for _, name := range names {
		list = append(append(list, name...), 0)
	}
	return fillValue(dest, list)
}

func (n *node) Setxattr(ctx context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	if unsupportedAttr(attr) {
		return syscall.ENOTSUP
	}
	if name, ok := n.ownAttr(attr); ok {
		if !uploader.WritableAttr(name, n.IsDir()) {
			return syscall.ENOTSUP
		}
		if err := uploader.ValidateAttr(name, string(data)); err != nil {
			rel, _ := n.path()
			n.root.Logger.Warn("attribute refused", "path", rel, "error", err)
			return syscall.EINVAL
		}
		// XATTR_CREATE and XATTR_REPLACE ask for a value, which may be
		// inherited, not for an attribute of the backing file.
		flags = 0
	}
	p, err := n.openPath()
	if err != nil {
		return errnoOf(err)
	}
	defer p.close()
	return errnoOf(n.changing(p, false, func() error { return unix.Setxattr(p.link(), attr, data, int(flags)) }))
}

// Removexattr succeeds without effect for attributes of ours that are read-only: so
// programs that copy or clear all attributes of a file report no error.
func (n *node) Removexattr(ctx context.Context, attr string) syscall.Errno {
	if unsupportedAttr(attr) {
		return syscall.ENOTSUP
	}
	name, our := n.ownAttr(attr)
	if our && !uploader.WritableAttr(name, n.IsDir()) {
		return 0
	}
	p, err := n.openPath()
	if err != nil {
		return errnoOf(err)
	}
	defer p.close()
	err = n.changing(p, false, func() error { return unix.Removexattr(p.link(), attr) })
	if our && err == unix.ENODATA {
		return 0
	}
	return errnoOf(err)
}

// listxattr names all extended attributes of the inode.
func (p pathFD) listxattr() ([]string, error) {
	const most = 64 << 10 // the kernel's own limit for a list
	buf := make([]byte, 1<<10)
	size, err := unix.Listxattr(p.link(), buf)
	if err == unix.ERANGE {
		buf = make([]byte, most)
		size, err = unix.Listxattr(p.link(), buf)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range bytes.SplitSeq(buf[:size], []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names, nil
}

// fillValue answers a request for an attribute's value. It always returns the size,
// and ERANGE if dest is too small; for an empty dest the kernel ignores ERANGE.
func fillValue(dest, value []byte) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}
