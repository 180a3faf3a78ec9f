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
	orphans    orphans
	handles    openHandles
	path       WritePath    // the one in use, never Auto
	info       backing.Info // of the backing tree's own directory
	callers    *callers
	background sync.WaitGroup // goroutines that outlive the request that started them

	// asRoot: new files can be given to the caller. Otherwise all files
	// belong to the daemon's user, as they do on any mount of that user.
	asRoot bool
}

func newRoot(o Options, path WritePath) (*root, error) {
	info, err := o.Tree.Stat("")
	if err != nil {
		return nil, err
	}
	return &root{Options: o, path: path, info: info, callers: newCallers(o), asRoot: os.Geteuid() == 0}, nil
}

// node is an inode of the mount. The file's state is in the backing inode.
type node struct {
	fs.Inode
	root *root

	mu    sync.Mutex // protects what follows, and the descriptors in files from being closed
	files []*os.File // descriptors on the backing inode, of handles and open directories

	writers uint64 // counts the handles that may write, since the node was made
	half    uint64 // the last of them that was there when a program crashed; 0 for none
}

// key is the identity of the backing inode. go-fuse's generation is the birth time,
// so a reused inode number is another node.
func (n *node) key() backing.Key {
	a := n.StableAttr()
	return backing.Key{Ino: a.Ino, Birth: int64(a.Gen)}
}

// path is the node's path in the tree, one of several if it has more names. ok is
// false if it, or a directory above it, has no name.
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

// childPath is the path of name in the directory n.
func (n *node) childPath(name string) string {
	if rel, _ := n.path(); rel != "" {
		return rel + "/" + name
	}
	return name
}

// hasName reports whether a path leads to the node.
func (n *node) hasName() bool {
	_, ok := n.path()
	return ok
}

// openPath finds the backing inode. The caller closes the descriptor. ESTALE makes
// the kernel look the name up again: the backing tree was changed behind the mount.
func (n *node) openPath() (pathFD, error) {
	if rel, ok := n.path(); ok {
		fd, err := n.root.Tree.OpenAt(rel, unix.O_PATH|unix.O_NOFOLLOW, 0)
		switch err {
		case nil:
			p := pathFD(fd)
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
	if p, kept, err := n.root.orphans.open(n); kept {
		return p, err
	}
	return n.pathOfOpenFile()
}

// OnForget follows the kernel's last use of the inode.
func (n *node) OnForget() { n.root.orphans.forget(n) }

// pathOfOpenFile finds the backing inode by a descriptor that is open on it.
func (n *node) pathOfOpenFile() (pathFD, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.files) == 0 {
		return -1, unix.ESTALE
	}
	return pathFDOf(n.files[0])
}

func pathFDOf(f *os.File) (pathFD, error) {
	fd, err := unix.Open(pathFD(f.Fd()).link(), unix.O_PATH|unix.O_CLOEXEC, 0)
	return pathFD(fd), err
}

// addFile records a descriptor on the backing inode, until closeFile.
func (n *node) addFile(f *os.File) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.files = append(n.files, f)
}

// closeFile closes a descriptor that addFile recorded.
func (n *node) closeFile(f *os.File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.files = slices.DeleteFunc(n.files, func(o *os.File) bool { return o == f })
	return f.Close()
}

// newChild makes the inode of an entry of the directory n. If go-fuse already has an
// inode of the same identity, it takes that one.
func (n *node) newChild(ctx context.Context, st *stat, out *fuse.EntryOut) *fs.Inode {
	fillAttr(&out.Attr, st)
	key := st.key()
	return n.NewInode(ctx, &node{root: n.root}, fs.StableAttr{Mode: uint32(st.Mode), Ino: key.Ino, Gen: uint64(key.Birth)})
}

// addWriter numbers a handle that may write to the file.
func (n *node) addWriter() (number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.writers++
	return n.writers
}

// setHalf records that a program that wrote to the file crashed. What the writers of
// now make of it is half a file, until it is written anew.
func (n *node) setHalf() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.half = n.writers
}

// setAnew ends setHalf: the file is written anew.
func (n *node) setAnew() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.half = 0
}

// isHalf reports whether the writer of that number makes half a file.
func (n *node) isHalf(number uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return number <= n.half
}

// nodeOf returns the node of an inode of this mount.
func nodeOf(i fs.InodeEmbedder) *node { return i.EmbeddedInode().Operations().(*node) }
