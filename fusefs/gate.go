//go:build linux

package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// gate stands before go-fuse's bridge and keeps the two trees in step: go-fuse's
// tree of inodes, from which a node's path is read, and the backing tree, in
// which the path is resolved.
//
// A rename changes both, one after the other, and the kernel does not keep other
// requests out meanwhile: it holds the two directories, not what lies below them,
// and not a file that is being opened or asked for its attributes. A path read
// between the two changes would lead to nothing, or to another file. So whatever
// resolves names holds names for reading, and what takes names away holds it
// for writing, from the backing call to go-fuse's own bookkeeping. That it also
// covers LOOKUP keeps a name that is just going away from being entered again.
//
// Requests on open files (READ, WRITE, FLUSH, …) resolve nothing and pass freely:
// a FLUSH may wait for the network for minutes.
type gate struct {
	fuse.RawFileSystem
	root *root

	// names is held for reading while names are resolved, for writing while
	// they are taken away.
	names sync.RWMutex
}

func (g *gate) Lookup(c <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Lookup(c, in, name, out)
}

func (g *gate) GetAttr(c <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.GetAttr(c, in, out)
}

func (g *gate) Statx(c <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Statx(c, in, out)
}

func (g *gate) SetAttr(c <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.SetAttr(c, in, out)
}

func (g *gate) Mknod(c <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Mknod(c, in, name, out)
}

func (g *gate) Mkdir(c <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Mkdir(c, in, name, out)
}

func (g *gate) Symlink(c <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Symlink(c, in, target, name, out)
}

func (g *gate) Link(c <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Link(c, in, name, out)
}

func (g *gate) Readlink(c <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Readlink(c, in)
}

func (g *gate) GetXAttr(c <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.GetXAttr(c, in, name, dest)
}

func (g *gate) ListXAttr(c <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.ListXAttr(c, in, dest)
}

func (g *gate) SetXAttr(c <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.SetXAttr(c, in, name, data)
}

func (g *gate) RemoveXAttr(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.RemoveXAttr(c, in, name)
}

func (g *gate) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Create(c, in, name, out)
}

func (g *gate) Tmpfile(c <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Tmpfile(c, in, out)
}

func (g *gate) Open(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Open(c, in, out)
}

func (g *gate) OpenDir(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.OpenDir(c, in, out)
}

// ReadDirPlus enters what it finds like Lookup; READDIR enters nothing.
func (g *gate) ReadDirPlus(c <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.ReadDirPlus(c, in, out)
}

func (g *gate) Unlink(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	defer g.root.grave.bury()
	g.names.Lock()
	defer g.names.Unlock()
	return g.RawFileSystem.Unlink(c, in, name)
}

func (g *gate) Rmdir(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	g.names.Lock()
	defer g.names.Unlock()
	return g.RawFileSystem.Rmdir(c, in, name)
}

func (g *gate) Rename(c <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	defer g.root.grave.bury()
	g.names.Lock()
	defer g.names.Unlock()
	return g.RawFileSystem.Rename(c, in, oldName, newName)
}

// OnUnmount follows the last request. The kernel drops RELEASE requests that it
// has not sent when the connection ends, also after an ordinary unmount, so what
// is left open is closed here.
func (g *gate) OnUnmount() {
	g.RawFileSystem.OnUnmount()
	g.root.live.abandon()
}

// grave holds descriptors of files that may have lost their last name. Closing
// the last descriptor frees the file's blocks, which takes a filesystem long
// for a large file, so it happens after gate.names is given back.
type grave struct {
	mu  sync.Mutex // protects fds
	fds []int
}

func (g *grave) add(fd int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fds = append(g.fds, fd)
}

func (g *grave) bury() {
	g.mu.Lock()
	fds := g.fds
	g.fds = nil
	g.mu.Unlock()
	for _, fd := range fds {
		unix.Close(fd)
	}
}
