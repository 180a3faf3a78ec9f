//go:build linux

package fusefs

import (
	"context"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
)

// openFlags are returned for every open file. Content changes through this mount
// only, so the kernel's cache stays valid from one open to the next.
const openFlags = fuse.FOPEN_KEEP_CACHE

// openReply is what OPEN returns for these flags. With O_DIRECT in passthrough the
// daemon reads and writes. dd clears the flag with fcntl(2) before its last block.
// The kernel's own open of the backing file would keep it and refuse that block.
func (n *node) openReply(flags uint32) uint32 {
	if n.root.path == Passthrough && flags&unix.O_DIRECT != 0 {
		return openFlags | fuse.FOPEN_DIRECT_IO
	}
	return openFlags
}

// Open opens the backing file. Of the caller's flags it passes on the access mode
// and O_NOATIME. In write-back the kernel itself finds the end of the file for
// O_APPEND and syncs for O_SYNC; it sends O_DIRECT requests unaligned. O_TRUNC never
// arrives: without ATOMIC_O_TRUNC the kernel sends a SETATTR of the size after the
// open.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if n.Mode() != unix.S_IFREG {
		return nil, 0, syscall.ENXIO // the kernel opens devices, FIFOs and sockets itself
	}
	p, err := n.openPath()
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	defer p.close()
	var f *os.File
	if opensForWriting(flags) {
		f, err = n.openWritable(p)
	} else {
		f, err = p.open(unix.O_RDONLY | int(flags)&unix.O_NOATIME)
	}
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	rel, _ := n.path()
	h, err := n.newHandle(ctx, f, rel, flags, uploader.Found)
	if err != nil {
		f.Close()
		return nil, 0, errnoOf(err)
	}
	return h, n.openReply(flags), 0
}

// openWritable opens a regular file for writing and reading. In write-back the
// kernel reads a page before it changes a part of it, and the uploader reads what
// it sends.
//
// A daemon that is not root may own a file that it cannot read (mode 0200). It
// gives itself the permission while it opens the file.
func (n *node) openWritable(p pathFD) (f *os.File, err error) {
	rel, _ := n.path()
	if err := n.root.Uploader.Recover(n.key(), rel); err != nil {
		return nil, err
	}
	f, err = p.open(unix.O_RDWR)
	if err != unix.EACCES {
		return f, err
	}
	err = n.changing(p, false, func() error {
		f, err = p.openAsOwner()
		return err
	})
	n.invalidateAttr() // a GETATTR may have seen the mode of that moment
	return f, err
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	dir, err := n.openPath()
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	defer dir.close()
	from := originOf(flags, mode&privateMode != 0)
	mode &^= privateMode
	// The open that creates a file needs no permission on it: O_RDWR works for
	// every mode.
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(dir), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	})
	if err == unix.EEXIST && flags&unix.O_EXCL == 0 {
		err = unix.ESTALE // the kernel knew of none: make it look again
	}
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	child, h, err := n.finishCreate(ctx, dir, os.NewFile(uintptr(fd), name), n.childPath(name), flags, mode, from, out)
	if err != nil {
		unix.Unlinkat(int(dir), name, 0)
		return nil, nil, 0, errnoOf(err)
	}
	return child, h, n.openReply(flags), 0
}

// Tmpfile makes a file without a name. Link may give it one; only then it is
// uploaded.
func (n *node) Tmpfile(ctx context.Context, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	dir, err := n.openPath()
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	defer dir.close()
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(dir), ".", unix.O_TMPFILE|unix.O_RDWR|int(flags)&unix.O_EXCL|unix.O_CLOEXEC, mode)
	})
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	f := os.NewFile(uintptr(fd), "unnamed file")
	p, err := pathFDOf(f)
	if err != nil {
		f.Close()
		return nil, nil, 0, errnoOf(err)
	}
	child, h, err := n.finishCreate(ctx, dir, f, "", flags, mode, uploader.Found, out)
	if err != nil {
		p.close()
		return nil, nil, 0, errnoOf(err)
	}
	n.root.orphans.keep(nodeOf(child), p)
	return child, h, n.openReply(flags), 0
}

// finishCreate makes inode and handle of a file that was just made in the directory
// n, opened as dir. It owns f, also when it fails.
func (n *node) finishCreate(ctx context.Context, dir pathFD, f *os.File, rel string, flags, mode uint32, from uploader.Origin, out *fuse.EntryOut) (*fs.Inode, *handle, error) {
	st, err := n.root.giveToCaller(ctx, dir, int(f.Fd()), "", mode)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	child := n.newChild(ctx, &st, out)
	h, err := nodeOf(child).newHandle(ctx, f, rel, flags, from)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return child, h, nil
}

// giveToCaller makes the caller the owner of a new file in the directory dir, as a
// native filesystem would. The file is name in the directory at; an empty name means
// the descriptor at itself. mode is the one that the caller asked for.
func (r *root) giveToCaller(ctx context.Context, dir pathFD, at int, name string, mode uint32) (stat, error) {
	caller, known := fuse.FromContext(ctx)
	if r.asRoot && known {
		parent, err := dir.stat()
		if err != nil {
			return stat{}, err
		}
		gid := int(caller.Gid)
		if parent.Mode&unix.S_ISGID != 0 {
			gid = -1 // the backing filesystem has set it to the directory's group
		}
		const flags = unix.AT_EMPTY_PATH | unix.AT_SYMLINK_NOFOLLOW
		if err := unix.Fchownat(at, name, int(caller.Uid), gid, flags); err != nil {
			return stat{}, err
		}
	}
	st, err := statAt(at, name)
	if err != nil {
		return stat{}, err
	}
	// A change of owner takes set-id bits away from everything but directories. The
	// kernel has already taken those that the caller may not give.
	want := mode & (unix.S_ISUID | unix.S_ISGID)
	switch st.fileType() {
	case unix.S_IFDIR, unix.S_IFLNK:
		return st, nil
	}
	if st.perm()&want != want {
		link := pathFD(at).link()
		if name != "" {
			link += "/" + name
		}
		if err := unix.Chmod(link, st.perm()|want); err != nil {
			return stat{}, err
		}
		return statAt(at, name)
	}
	return st, nil
}

// opensForWriting reports whether the open(2) flags allow to change the content.
func opensForWriting(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }
