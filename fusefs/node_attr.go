//go:build linux

package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	st, err := n.stat(f)
	if err != nil {
		return errnoOf(err)
	}
	fillAttr(&out.Attr, &st)
	return 0
}

// Statx exists for the birth time, which no other request returns.
func (n *node) Statx(ctx context.Context, f fs.FileHandle, flags, mask uint32, out *fuse.StatxOut) syscall.Errno {
	st, err := n.stat(f)
	if err != nil {
		return errnoOf(err)
	}
	out.FromStatx(&st.Statx_t)
	return 0
}

// stat describes the backing inode, by the handle if there is one.
func (n *node) stat(f fs.FileHandle) (stat, error) {
	switch h := f.(type) {
	case *handle:
		return statAt(h.fd, "")
	case *dirHandle:
		return statAt(h.fd, "")
	}
	p, err := n.openPath()
	if err != nil {
		return stat{}, err
	}
	defer p.close()
	return p.stat()
}

func fillAttr(a *fuse.Attr, st *stat) {
	*a = fuse.Attr{
		Ino:       st.Ino,
		Size:      st.Size,
		Blocks:    st.Blocks,
		Atime:     uint64(st.Atime.Sec),
		Atimensec: st.Atime.Nsec,
		Mtime:     uint64(st.Mtime.Sec),
		Mtimensec: st.Mtime.Nsec,
		Ctime:     uint64(st.Ctime.Sec),
		Ctimensec: st.Ctime.Nsec,
		Mode:      uint32(st.Mode),
		Nlink:     st.Nlink,
		Owner:     fuse.Owner{Uid: st.Uid, Gid: st.Gid},
		Rdev:      uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)),
		Blksize:   st.Blksize,
	}
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	h, _ := f.(*handle)
	var p pathFD
	var err error
	if h != nil {
		p, err = pathFDOf(h.file)
	} else {
		p, err = n.openPath()
	}
	if err != nil {
		return errnoOf(err)
	}
	defer p.close()
	if err := n.setattr(p, h, in); err != nil {
		return errnoOf(err)
	}
	st, err := p.stat()
	if err != nil {
		return errnoOf(err)
	}
	fillAttr(&out.Attr, &st)
	out.SetTimeout(cacheTime) // go-fuse does so for the other answers
	return 0
}

// setattr makes the changes in an order in which none undoes another: chown clears
// set-id bits, and truncate sets mtime.
func (n *node) setattr(p pathFD, h *handle, in *fuse.SetAttrIn) error {
	if err := n.changing(p, false, func() error { return n.setOwnerAndMode(p, in) }); err != nil {
		return err
	}
	if size, ok := in.GetSize(); ok {
		if err := n.resize(p, h, int64(size)); err != nil {
			return err
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
		return nil
	}
	set := func() error {
		return p.utimes(
			timeToSet(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
			timeToSet(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec))
	}
	return n.changing(p, in.Valid&fuse.FATTR_MTIME != 0, set)
}

// setOwnerAndMode makes the changes that concern neither size nor times.
func (n *node) setOwnerAndMode(p pathFD, in *fuse.SetAttrIn) error {
	uid, setUID := in.GetUID()
	gid, setGID := in.GetGID()
	if setUID || setGID {
		if err := p.chown(orKeep(uid, setUID), orKeep(gid, setGID)); err != nil {
			return err
		}
	}
	if killsSetID(in.Valid) {
		if err := n.dropSetID(p); err != nil {
			return err
		}
	}
	mode, ok := in.GetMode()
	switch {
	case !ok:
		return nil
	case n.Mode() == unix.S_IFLNK:
		return unix.EOPNOTSUPP // as every Linux filesystem
	}
	return p.chmod(mode)
}

// changing surrounds do, which changes metadata of the inode but not its content;
// mtime says that it may set the mtime.
func (n *node) changing(p pathFD, mtime bool, do func() error) error {
	if n.Mode() != unix.S_IFREG {
		return do()
	}
	rel, _ := n.path()
	return n.root.Uploader.ChangeMetadata(do, uploader.MetadataChange{Key: n.key(), Path: rel, Mtime: mtime, Stat: p.info})
}

// killsSetID reports whether a SETATTR with these valid bits asks to clear set-id
// bits. On truncate and chown a flag says so. Before a write by a program without
// privilege the SETATTR is empty.
func killsSetID(valid uint32) bool {
	return valid&fuse.FATTR_KILL_SUIDGID != 0 || valid&^(fuse.FATTR_FH|fuse.FATTR_LOCKOWNER) == 0
}

// dropSetID clears S_ISUID, and S_ISGID where the group may execute. Without group
// execute, S_ISGID once meant mandatory locking, not identity. HANDLE_KILLPRIV_V2
// makes this the daemon's duty.
func (n *node) dropSetID(p pathFD) error {
	if n.Mode() != unix.S_IFREG {
		return nil
	}
	st, err := p.stat()
	if err != nil {
		return err
	}
	mode := st.perm() &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	if mode == st.perm() {
		return nil
	}
	if err := p.chmod(mode); err != nil {
		return err
	}
	n.invalidateAttr() // before a WRITE no answer says so
	return nil
}

// resize is ftruncate(2), also the one that the kernel makes of O_TRUNC. Without a
// writable handle it is truncate(2): an open, a change and a close in one.
func (n *node) resize(p pathFD, h *handle, size int64) error {
	if h != nil && h.writer != nil {
		return h.resize(size)
	}
	f, err := n.openWritable(p)
	if err != nil {
		return err
	}
	defer f.Close()
	rel, _ := n.path()
	w, err := n.root.Uploader.OpenWriter(n.key(), rel, f, uploader.Found)
	if err != nil {
		return err
	}
	defer w.Close() // commits in the background
	return n.resizeFile(w, int(f.Fd()), size)
}

// resizeFile changes the size of the backing file fd. EFBIG refuses a size that the
// API does not take. A file that is emptied is written anew from here on.
func (n *node) resizeFile(w *uploader.Writer, fd int, size int64) error {
	if tooLarge(w, size) {
		return unix.EFBIG
	}
	err := w.Resize(size, func() error {
		return retryEINTRErr(func() error { return unix.Ftruncate(fd, size) })
	})
	if err == nil && size == 0 {
		n.setAnew()
	}
	return err
}

// tooLarge reports whether a file of this size could not be sent. One with an excluded
// name never is: only the disk bounds it.
func tooLarge(w *uploader.Writer, size int64) bool { return size > api.MaxUpload && !w.Excluded() }

// orKeep returns id, or -1, which leaves an owner as it is.
func orKeep(id uint32, set bool) int {
	if !set {
		return -1
	}
	return int(id)
}

func timeToSet(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

// Statfs describes the filesystem of the backing tree, whose free space a writer can
// use.
func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	var st syscall.Statfs_t
	if err := retryEINTRErr(func() error { return syscall.Fstatfs(n.root.Tree.Fd(), &st) }); err != nil {
		return errnoOf(err)
	}
	out.FromStatfsT(&st)
	return 0
}
