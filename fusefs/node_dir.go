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

// dirHandle is one open of a directory. It hands on the backing directory's own
// entries with their own offsets, so that a listing stays true while entries come
// and go, as far as the backing filesystem makes it so. It may be used
// concurrently.
type dirHandle struct {
	node *node
	file *os.File
	fd   int // of file

	mu   sync.Mutex // protects what follows and the descriptor's position
	buf  []byte     // from getdents(2)
	rest []byte     // of buf, not yet handed on
}

// dirBuffer is as much as one getdents(2) reads, in bytes: some hundred entries.
const dirBuffer = 32 << 10

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	p, err := n.pin()
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	defer p.close()
	f, err := p.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	d := &dirHandle{node: n, file: f, fd: int(f.Fd())}
	n.opened(f)
	n.root.live.add(d)
	return d, 0, 0
}

func (d *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.rest) == 0 {
		if d.buf == nil {
			d.buf = make([]byte, dirBuffer)
		}
		size, err := retry(func() (int, error) { return unix.Getdents(d.fd, d.buf) })
		if err != nil {
			return nil, errnoOf(err)
		}
		if size == 0 {
			return nil, 0
		}
		d.rest = d.buf[:size]
	}
	var e fuse.DirEntry
	d.rest = d.rest[e.Parse(d.rest):]
	return &e, 0
}

func (d *dirHandle) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rest = nil
	_, err := unix.Seek(d.fd, int64(off), unix.SEEK_SET)
	return errnoOf(err)
}

// Lookup answers for the entries of a READDIRPLUS, with one system call each.
func (d *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	st, err := statAt(d.fd, name)
	if err != nil {
		return nil, errnoOf(err)
	}
	return d.node.enter(ctx, &st, out), 0
}

func (d *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return errnoOf(fsync(d.fd, flags))
}

func (d *dirHandle) Releasedir(ctx context.Context, flags uint32) {
	d.node.root.live.remove(d)
	d.node.closed(d.file)
}

func (d *dirHandle) abandon() { d.node.closed(d.file) }
