//go:build linux

package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	dir, err := n.openPath()
	if err != nil {
		return nil, errnoOf(err)
	}
	defer dir.close()
	st, err := statAt(int(dir), name)
	if err != nil {
		return nil, errnoOf(err)
	}
	return n.newChild(ctx, &st, out), 0
}

func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	p, err := n.openPath()
	if err != nil {
		return nil, errnoOf(err)
	}
	defer p.close()
	buf := make([]byte, unix.PathMax) // no target is longer
	size, err := unix.Readlinkat(int(p), "", buf)
	if err != nil {
		return nil, errnoOf(err)
	}
	return buf[:size], 0
}
