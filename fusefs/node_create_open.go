//go:build linux

package fusefs

import (
	"context"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFlags are returned for every open file. Content changes through this mount
// only, so what the kernel has cached stays right from one open to the next.
const openFlags = fuse.FOPEN_KEEP_CACHE

// reply is what is returned for an open with these flags. With O_DIRECT in
// passthrough the daemon does the reading and writing: the kernel's own open of the
// backing file would keep the flag when the program takes it away with fcntl(2), as
// dd does before its last block, and would refuse that block.
func (n *node) reply(flags uint32) uint32 {
	if n.root.path == Passthrough && flags&unix.O_DIRECT != 0 {
		return openFlags | fuse.FOPEN_DIRECT_IO
	}
	return openFlags
}

// Open opens the backing file. Of the caller's flags only the access mode (and
// O_NOATIME) reaches it: in write-back the kernel itself finds the end of the
// file for O_APPEND, syncs for O_SYNC, and passes O_DIRECT requests on unaligned.
// O_TRUNC never arrives: without ATOMIC_O_TRUNC the kernel sends a SETATTR of the
// size after the open.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if n.Mode() != unix.S_IFREG {
		return nil, 0, syscall.ENXIO // the kernel opens devices, FIFOs and sockets itself
	}
	p, err := n.pin()
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	defer p.close()
	var f *os.File
	if writes(flags) {
		f, err = p.openWritable()
	} else {
		f, err = p.open(unix.O_RDONLY | int(flags)&unix.O_NOATIME)
	}
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	rel, _ := n.path()
	h, err := n.newHandle(ctx, f, rel, flags)
	if err != nil {
		f.Close()
		return nil, 0, errnoOf(err)
	}
	return h, n.reply(flags), 0
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	dir, err := n.pin()
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	defer dir.close()
	// The open that creates a file needs no permission on it, so O_RDWR works
	// for every mode.
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	})
	if err == unix.EEXIST && flags&unix.O_EXCL == 0 {
		err = unix.ESTALE // the kernel believed that there is none: let it look again
	}
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	child, h, err := n.created(ctx, dir, os.NewFile(uintptr(fd), name), n.below(name), flags, mode, out)
	if err != nil {
		unix.Unlinkat(int(dir), name, 0)
		return nil, nil, 0, errnoOf(err)
	}
	return child, h, n.reply(flags), 0
}

// Tmpfile makes a file without a name. It gets one, and begins to be of interest,
// when the caller links it (see Link).
func (n *node) Tmpfile(ctx context.Context, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	dir, err := n.pin()
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	defer dir.close()
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir), ".", unix.O_TMPFILE|unix.O_RDWR|int(flags)&unix.O_EXCL|unix.O_CLOEXEC, mode)
	})
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	child, h, err := n.created(ctx, dir, os.NewFile(uintptr(fd), "unnamed file"), "", flags, mode, out)
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	return child, h, n.reply(flags), 0
}

// created finishes a file that was just made in the directory n, whose pin is
// dir. It owns f, also when it fails.
func (n *node) created(ctx context.Context, dir pin, f *os.File, rel string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, *handle, error) {
	st, err := n.root.own(ctx, dir, int(f.Fd()), "", mode)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	child := n.enter(ctx, &st, out)
	h, err := nodeOf(child).newHandle(ctx, f, rel, flags)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return child, h, nil
}

// own gives a new file in the directory dir to the caller, who is the one that
// the kernel would have made it for. The file is name in the directory at, or
// with "" the descriptor at itself. mode is the one that the caller asked for.
func (r *root) own(ctx context.Context, dir pin, at int, name string, mode uint32) (stat, error) {
	caller, known := fuse.FromContext(ctx)
	if r.asRoot && known {
		parent, err := dir.stat()
		if err != nil {
			return stat{}, err
		}
		gid := int(caller.Gid)
		if parent.Mode&unix.S_ISGID != 0 {
			gid = -1 // a set-gid directory's group; the backing filesystem has seen to it
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
	// A change of owner takes set-id bits away from everything but directories.
	if want := mode & (unix.S_ISUID | unix.S_ISGID); st.kind() == unix.S_IFREG && st.perm()&want != want {
		link := pin(at).link()
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

// writes reports whether the open(2) flags allow to change the content.
func writes(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }
