//go:build linux

package fusefs

import (
	"context"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// dirHandle is one open of a directory. It returns the backing directory's entries
// with their own offsets, so a listing stays as consistent while entries come and
// go as the backing filesystem makes it. It may be used concurrently.
type dirHandle struct {
	node *node
	file *os.File
	fd   int // of file

	mu     sync.Mutex // protects buf, unread and the descriptor's position
	buf    []byte     // from getdents(2)
	unread []byte     // of buf, not yet returned
}

// dirBuffer is the size of one getdents(2), in bytes: some hundred entries.
const dirBuffer = 32 << 10

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	p, err := n.openPath()
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	defer p.close()
	f, err := p.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	d := &dirHandle{node: n, file: f, fd: int(f.Fd())}
	n.addFile(f)
	n.root.handles.add(d)
	return d, 0, 0
}

func (d *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.unread) == 0 {
		if d.buf == nil {
			d.buf = make([]byte, dirBuffer)
		}
		size, err := retryEINTR(func() (int, error) { return unix.Getdents(d.fd, d.buf) })
		if err != nil {
			return nil, errnoOf(err)
		}
		if size == 0 {
			return nil, 0
		}
		d.unread = d.buf[:size]
	}
	var e fuse.DirEntry
	d.unread = d.unread[e.Parse(d.unread):]
	return &e, 0
}

func (d *dirHandle) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unread = nil
	_, err := unix.Seek(d.fd, int64(off), unix.SEEK_SET)
	return errnoOf(err)
}

// Lookup describes the entries of a READDIRPLUS, with one system call each.
func (d *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	st, err := statAt(d.fd, name)
	if err != nil {
		return nil, errnoOf(err)
	}
	return d.node.newChild(ctx, &st, out), 0
}

func (d *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return errnoOf(fsync(d.fd, flags))
}

func (d *dirHandle) Releasedir(ctx context.Context, flags uint32) {
	d.node.root.handles.remove(d)
	d.node.closeFile(d.file)
}

func (d *dirHandle) abandon() { d.node.closeFile(d.file) }
