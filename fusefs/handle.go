//go:build linux

package fusefs

import (
	"context"
	"io"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs/procfs"
	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

// handle is one open of a regular file. It may be used concurrently.
type handle struct {
	node     *node
	ino      uint64
	file     *os.File // the backing file; readable, and writable if writable
	plain    *os.File // in passthrough: the same for reading only; may be file itself
	fd       int      // of file
	writable bool
	opener   procfs.Process
	writer   *uploader.Writer // nil unless writable
}

// newHandle makes the handle of an open by the caller, with the flags of open(2),
// whose backing file is f. The journal knows that the file may change before it
// returns. It owns f unless it fails.
func (n *node) newHandle(ctx context.Context, f *os.File, rel string, flags uint32) (*handle, error) {
	writable := writes(flags)
	h := &handle{node: n, ino: n.StableAttr().Ino, file: f, fd: int(f.Fd()), writable: writable}
	h.opener = n.root.rules.opener(callerPid(ctx))
	if err := h.passThrough(); err != nil {
		return nil, err
	}
	if writable {
		open, file := n.root.Uploader.OpenWriter, f
		if h.plain != nil {
			open, file = n.root.Uploader.OpenPolledWriter, h.plain
		}
		w, err := open(n.key(), rel, file)
		if err != nil {
			h.closePlain()
			return nil, err
		}
		if flags&unix.O_ACCMODE == unix.O_RDWR {
			w.Mappable()
		}
		if oracle := n.root.rules.copySource(h.opener, h.ino); oracle != nil {
			w.SetPredictor(oracle)
		}
		h.writer = w
	}
	n.opened(f)
	n.root.live.add(h)
	return h, nil
}

// callerPid is the thread that a request comes from; 0 if that cannot be told,
// as in another PID namespace, or for the kernel's own write-back.
func callerPid(ctx context.Context) uint32 {
	if c, ok := fuse.FromContext(ctx); ok {
		return c.Pid
	}
	return 0
}

// Read names the place instead of reading: go-fuse splices it to the kernel.
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultFd(uintptr(h.fd), off, len(dest)), 0
}

// dropSetID takes set-id bits away before a WRITE with O_DIRECT in passthrough, the
// one kind that comes without a SETATTR for that. The kernel marks the request
// instead, which go-fuse does not show, so it is done for everybody but root.
func (h *handle) dropSetID(ctx context.Context) error {
	if h.plain == nil {
		return nil // write-back: on the way of every WRITE
	}
	if caller, ok := fuse.FromContext(ctx); ok && caller.Uid == 0 {
		return nil
	}
	p, err := pinOf(h.file)
	if err != nil {
		return err
	}
	defer p.close()
	return h.node.dropSetID(p)
}

// Write writes all of data or fails: in write-back the kernel takes no notice of
// how much a WRITE has written, and the rest would be lost without a word.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if h.writer == nil {
		return 0, syscall.EBADF
	}
	if err := h.dropSetID(ctx); err != nil {
		return 0, errnoOf(err)
	}
	_, err := h.writer.Write(off, int64(len(data)), func() (int64, error) {
		if off+int64(len(data)) > api.MaxUpload {
			return 0, unix.EFBIG
		}
		done := 0
		for done < len(data) {
			size, err := retry(func() (int, error) { return unix.Pwrite(h.fd, data[done:], off+int64(done)) })
			if err != nil {
				return int64(done), err
			}
			if size == 0 {
				return int64(done), io.ErrShortWrite
			}
			done += size
		}
		return int64(done), nil
	})
	if err != nil {
		return 0, errnoOf(err)
	}
	return uint32(len(data)), 0
}

func (h *handle) resize(size int64) error { return resize(h.writer, h.fd, size) }

// Fsync makes local bytes durable. It has nothing to do with the network, but it
// is one of the two calls that can tell a program of a WRITE that failed.
func (h *handle) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if err := h.damage(); err != nil {
		return errnoOf(err)
	}
	return errnoOf(fsync(h.fd, flags))
}

// damage is the error of a WRITE that failed and that nothing has replaced.
func (h *handle) damage() error {
	if h.writer == nil {
		return nil
	}
	return h.writer.Lost()
}

// fsync is fsync(2), or with FUSE_FSYNC_FDATASYNC in flags fdatasync(2).
func fsync(fd int, flags uint32) error {
	const datasync = 1
	if flags&datasync != 0 {
		return retryErr(func() error { return unix.Fdatasync(fd) })
	}
	return retryErr(func() error { return unix.Fsync(fd) })
}

// Allocate is fallocate(2). Modes that the kernel does not pass on today, which
// move what lies behind the range, are refused should it begin to.
func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	const keep, punch, zero = unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	if h.writer == nil {
		return syscall.EBADF
	}
	start, length := int64(off), int64(size)
	end := start + length
	if mode&keep == 0 && end > api.MaxUpload {
		return syscall.EFBIG
	}
	st, err := statAt(h.fd, "")
	if err != nil {
		return errnoOf(err)
	}
	do := func() error {
		return retryErr(func() error { return unix.Fallocate(h.fd, mode, start, length) })
	}
	switch mode {
	case 0:
		if end > int64(st.Size) {
			return errnoOf(h.writer.Resize(end, do))
		}
		return errnoOf(do()) // space for what is there: the content stays
	case keep:
		return errnoOf(do())
	case punch | keep, zero | keep:
		end = max(start, min(end, int64(st.Size)))
	case zero:
	default:
		return syscall.EOPNOTSUPP
	}
	_, err = h.writer.Change(start, end-start, func() (int64, error) {
		if err := do(); err != nil {
			return 0, err
		}
		return end - start, nil
	})
	return errnoOf(err)
}

// Lseek is SEEK_DATA and SEEK_HOLE; other positions the kernel finds itself. In
// write-back it does not write its cached pages back before it asks, so the backing
// file would call a hole what has just been written, and a copy made by holes
// would lose it. After ENOSYS the kernel answers by itself: all is data up to the
// size that it knows. In passthrough there are no such pages. The position that
// this moves, of the daemon's own descriptor, is used by nobody.
func (h *handle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if h.plain == nil {
		return 0, syscall.ENOSYS
	}
	pos, err := unix.Seek(int(h.plain.Fd()), int64(off), int(whence))
	if err != nil {
		return 0, errnoOf(err)
	}
	return uint64(pos), 0
}

// CopyFileRange copies within the backing filesystem, which may share the blocks.
// The kernel has written its cached pages of both ranges back.
func (n *node) CopyFileRange(ctx context.Context, in fs.FileHandle, offIn uint64, _ *fs.Inode, out fs.FileHandle, offOut, size, flags uint64) (uint32, syscall.Errno) {
	from, ok := in.(*handle)
	to, ok2 := out.(*handle)
	if !ok || !ok2 || to.writer == nil {
		return 0, syscall.EBADF
	}
	r, w := int64(offIn), int64(offOut)
	if w >= api.MaxUpload {
		return 0, syscall.EFBIG
	}
	// The answer has 32 bits.
	length := min(int64(size), 1<<30, api.MaxUpload-w)
	done, err := to.writer.Change(w, length, func() (int64, error) {
		size, err := retry(func() (int, error) {
			return unix.CopyFileRange(from.fd, &r, to.fd, &w, int(length), int(flags))
		})
		return int64(max(size, 0)), err
	})
	if err != nil {
		return 0, errnoOf(err)
	}
	return uint32(done), 0
}
