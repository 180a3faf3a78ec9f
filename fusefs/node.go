//go:build linux

package fusefs

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/backing"
)

// root is what all nodes of a mount share.
type root struct {
	Options
	grave grave
	live  live
	path  WritePath    // the one in use, never Auto
	info  backing.Info // of the backing tree's own directory
	rules *rules

	// asRoot: new files can be given to the caller. Otherwise all files
	// belong to the daemon's user, as they do on any mount of that user.
	asRoot bool
}

func newRoot(o Options, path WritePath) (*root, error) {
	info, err := o.Tree.Stat("")
	if err != nil {
		return nil, err
	}
	return &root{Options: o, path: path, info: info, rules: newRules(), asRoot: os.Geteuid() == 0}, nil
}

// node is an inode of the mount. It has no state of the file's: that is in the
// backing inode.
type node struct {
	fs.Inode
	root *root

	mu   sync.Mutex // protects open, and the descriptors in it from being closed
	open []*os.File // descriptors on the backing inode, of handles and open directories
}

// key is the identity of the backing inode. go-fuse calls the birth time the
// generation: a reused inode number is another node.
func (n *node) key() backing.Key {
	a := n.StableAttr()
	return backing.Key{Ino: a.Ino, Birth: int64(a.Gen)}
}

// path is where the node is in the tree; ok is false if it has no name, or if a
// directory above it has none. Of a file with several names it is one of them.
func (n *node) path() (rel string, ok bool) {
	var names []string
	for i := n.EmbeddedInode(); !i.IsRoot(); {
		name, parent := i.Parent()
		if parent == nil {
			return "", false
		}
		names = append(names, name)
		i = parent
	}
	slices.Reverse(names)
	return strings.Join(names, "/"), true
}

// below is the path of name in the directory n.
func (n *node) below(name string) string {
	if rel, _ := n.path(); rel != "" {
		return rel + "/" + name
	}
	return name
}

// pin finds the backing inode. The caller closes the pin. ESTALE, upon which the
// kernel looks the name up again, means that the backing tree was changed behind
// the mount.
func (n *node) pin() (pin, error) {
	if rel, ok := n.path(); ok {
		fd, err := n.root.Tree.OpenAt(rel, unix.O_PATH|unix.O_NOFOLLOW, 0)
		switch err {
		case nil:
			p := pin(fd)
			st, err := p.stat()
			if err == nil && st.key() == n.key() {
				return p, nil
			}
			p.close()
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV:
		default:
			return -1, err
		}
	}
	return n.pinOpen()
}

// pinOpen finds the backing inode by a descriptor that is open on it.
func (n *node) pinOpen() (pin, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.open) == 0 {
		return -1, unix.ESTALE
	}
	return pinOf(n.open[0])
}

func pinOf(f *os.File) (pin, error) {
	fd, err := unix.Open(pin(f.Fd()).link(), unix.O_PATH|unix.O_CLOEXEC, 0)
	return pin(fd), err
}

// opened notes a descriptor on the backing inode, until closed.
func (n *node) opened(f *os.File) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, f)
}

// closed forgets the descriptor and closes it.
func (n *node) closed(f *os.File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = slices.DeleteFunc(n.open, func(o *os.File) bool { return o == f })
	return f.Close()
}

// enter makes the inode for what was found, or made, in the directory n. go-fuse
// takes the inode it already has for the same identity instead, if there is one.
func (n *node) enter(ctx context.Context, st *stat, out *fuse.EntryOut) *fs.Inode {
	fillAttr(&out.Attr, st)
	key := st.key()
	return n.NewInode(ctx, &node{root: n.root}, fs.StableAttr{Mode: uint32(st.Mode), Ino: key.Ino, Gen: uint64(key.Birth)})
}

// nodeOf is the node of an inode of this mount.
func nodeOf(i fs.InodeEmbedder) *node { return i.EmbeddedInode().Operations().(*node) }
