//go:build linux

package fusefs

import (
	"context"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

// handle is one open of a regular file. It may be used concurrently.
type handle struct {
	node     *node
	ino      uint64   // of the backing file
	file     *os.File // the backing file; readable, and writable if writable
	readOnly *os.File // in passthrough: the same for reading only; may be file itself
	fd       int      // of file
	writable bool
	number   uint64           // among the writers of the node
	opener   opener           // if writable
	exits    sync.WaitGroup   // decisions about it that wait for the end of a program
	mappings mappingWatches   // of its FLUSHes
	writer   *uploader.Writer // nil unless writable
	told     atomic.Bool      // its last FLUSH returned the error of all that was written
}

// newHandle makes the handle of an open by the caller, with the flags of open(2) and
// the backing file f; from says how the open has come by it. Before newHandle returns,
// the journal knows that the file may change. It owns f unless it fails.
func (n *node) newHandle(ctx context.Context, f *os.File, rel string, flags uint32, from uploader.Origin) (*handle, error) {
	writable := opensForWriting(flags)
	h := &handle{node: n, ino: n.StableAttr().Ino, file: f, fd: int(f.Fd()), writable: writable}
	if err := h.openReadOnly(); err != nil {
		return nil, err
	}
	if writable {
		open, file := n.root.Uploader.OpenWriter, f
		if h.readOnly != nil {
			open, file = n.root.Uploader.OpenPolledWriter, h.readOnly
		}
		w, err := open(n.key(), rel, file, from)
		if err != nil {
			h.closeReadOnly()
			return nil, err
		}
		h.opener = n.root.callers.opener(callerPid(ctx))
		h.number = n.addWriter()
		h.mappings = mappingWatches{running: map[int]*mappingWatch{}, released: make(chan struct{})}
		if flags&unix.O_ACCMODE == unix.O_RDWR {
			w.Mappable()
			n.mappable.Store(true)
		}
		if predictor := n.root.callers.copySource(h.opener.Process, h.ino); predictor != nil {
			w.SetPredictor(predictor)
		}
		h.writer = w
		n.root.written.add(n)
	}
	n.addFile(f)
	n.root.handles.add(h)
	return h, nil
}

// callerPid is the thread that a request comes from; 0 for a thread that is not in
// the daemon's PID namespace, and for the kernel's own write-back.
func callerPid(ctx context.Context) uint32 {
	if c, ok := fuse.FromContext(ctx); ok {
		return c.Pid
	}
	return 0
}

// Read returns the file and the range: go-fuse splices the bytes to the kernel.
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultFd(uintptr(h.fd), off, len(dest)), 0
}

// Write writes all of data or fails: in write-back the kernel ignores a short
// count, and the rest would be lost in silence.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if h.writer == nil {
		return 0, syscall.EBADF
	}
	_, err := h.writer.Write(off, data, func() (int64, error) {
		if tooLarge(h.writer, off+int64(len(data))) {
			return 0, unix.EFBIG
		}
		done := 0
		for done < len(data) {
			size, err := retryEINTR(func() (int, error) { return unix.Pwrite(h.fd, data[done:], off+int64(done)) })
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

func (h *handle) resize(size int64) error { return h.node.resizeFile(h.writer, h.fd, size) }

// Fsync makes local bytes durable and uploads nothing. Like close it returns the
// error of a WRITE that failed.
func (h *handle) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if err := h.lostWrite(); err != nil {
		return errnoOf(err)
	}
	return errnoOf(fsync(h.fd, flags))
}

// damage is the error of a WRITE that failed and that nothing has replaced.
func (h *handle) lostWrite() error {
	if h.writer == nil {
		return nil
	}
	return h.writer.Lost()
}

// fsync is fsync(2), or with FUSE_FSYNC_FDATASYNC in flags fdatasync(2).
func fsync(fd int, flags uint32) error {
	const datasync = 1
	if flags&datasync != 0 {
		return retryEINTRErr(func() error { return unix.Fdatasync(fd) })
	}
	return retryEINTRErr(func() error { return unix.Fsync(fd) })
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
	if mode&keep == 0 && tooLarge(h.writer, end) {
		return syscall.EFBIG
	}
	st, err := statAt(h.fd, "")
	if err != nil {
		return errnoOf(err)
	}
	do := func() error {
		return retryEINTRErr(func() error { return unix.Fallocate(h.fd, mode, start, length) })
	}
	switch mode {
	case 0:
		if end > int64(st.Size) {
			return errnoOf(h.writer.Resize(end, do))
		}
		return errnoOf(h.node.changing(pathFD(h.fd), true, do)) // space for what is there: the content stays
	case keep:
		return errnoOf(h.node.changing(pathFD(h.fd), true, do))
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

// Lseek is SEEK_DATA and SEEK_HOLE; the kernel finds other positions itself. In
// write-back the kernel sends the request before its cached pages, and bytes just
// written would look like a hole: a copy that skips holes would lose them. After
// ENOSYS the kernel takes everything up to the size for data. In passthrough
// there are no such pages. Nothing else uses the position of the daemon's
// descriptor.
func (h *handle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if h.readOnly == nil {
		return 0, syscall.ENOSYS
	}
	pos, err := unix.Seek(int(h.readOnly.Fd()), int64(off), int(whence))
	if err != nil {
		return 0, errnoOf(err)
	}
	return uint64(pos), 0
}

// CopyFileRange copies within the backing filesystem, which may share the blocks.
// The kernel has already written back its cached pages of both ranges.
func (n *node) CopyFileRange(ctx context.Context, in fs.FileHandle, offIn uint64, _ *fs.Inode, out fs.FileHandle, offOut, size, flags uint64) (uint32, syscall.Errno) {
	from, ok := in.(*handle)
	to, ok2 := out.(*handle)
	if !ok || !ok2 || to.writer == nil {
		return 0, syscall.EBADF
	}
	r, w := int64(offIn), int64(offOut)
	if tooLarge(to.writer, w+1) {
		return 0, syscall.EFBIG
	}
	length := min(int64(size), 1<<30) // the answer has 32 bits
	if tooLarge(to.writer, w+length) {
		length = api.MaxUpload - w
	}
	done, err := to.writer.Change(w, length, func() (int64, error) {
		size, err := retryEINTR(func() (int, error) {
			return unix.CopyFileRange(from.fd, &r, to.fd, &w, int(length), int(flags))
		})
		return int64(max(size, 0)), err
	})
	if err != nil {
		return 0, errnoOf(err)
	}
	return uint32(done), 0
}
