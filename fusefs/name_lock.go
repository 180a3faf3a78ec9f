//go:build linux

package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// nameLock wraps go-fuse's request handlers and keeps two trees in step: go-fuse's
// tree of inodes, from which a node's path is read, and the backing tree, in which
// the path is resolved.
//
// A rename changes both trees, one after the other. The kernel locks the two
// directories, but neither the files below them nor a file that is being opened
// or described. A path read between the two changes would lead to nothing, or to
// another file. So a request that resolves names locks names for reading. A
// request that takes names away locks it for writing, from the backing call to
// go-fuse's bookkeeping. LOOKUP locks too: otherwise it could enter a name again
// that is being removed.
//
// Requests on open files (READ, WRITE, FLUSH, …) resolve no name and take no lock:
// a FLUSH may wait for the network for minutes.
type nameLock struct {
	fuse.RawFileSystem
	root *root

	// names is locked for reading while names are resolved, for writing while
	// they are taken away.
	names sync.RWMutex
}

func (g *nameLock) Lookup(c <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Lookup(c, in, name, out)
}

func (g *nameLock) GetAttr(c <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.GetAttr(c, in, out)
}

func (g *nameLock) Statx(c <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Statx(c, in, out)
}

func (g *nameLock) SetAttr(c <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.SetAttr(c, in, out)
}

func (g *nameLock) Mknod(c <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Mknod(c, in, name, out)
}

func (g *nameLock) Mkdir(c <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Mkdir(c, in, name, out)
}

func (g *nameLock) Symlink(c <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Symlink(c, in, target, name, out)
}

func (g *nameLock) Link(c <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	defer g.root.orphans.forgetLinked()
	return g.RawFileSystem.Link(c, in, name, out)
}

func (g *nameLock) Readlink(c <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Readlink(c, in)
}

func (g *nameLock) GetXAttr(c <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.GetXAttr(c, in, name, dest)
}

func (g *nameLock) ListXAttr(c <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.ListXAttr(c, in, dest)
}

func (g *nameLock) SetXAttr(c <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.SetXAttr(c, in, name, data)
}

func (g *nameLock) RemoveXAttr(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.RemoveXAttr(c, in, name)
}

func (g *nameLock) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Create(c, in, name, out)
}

func (g *nameLock) Tmpfile(c <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Tmpfile(c, in, out)
}

func (g *nameLock) Open(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.Open(c, in, out)
}

func (g *nameLock) OpenDir(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.OpenDir(c, in, out)
}

// ReadDirPlus adds inodes as Lookup does; READDIR adds none.
func (g *nameLock) ReadDirPlus(c <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	g.names.RLock()
	defer g.names.RUnlock()
	return g.RawFileSystem.ReadDirPlus(c, in, out)
}

func (g *nameLock) Unlink(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return g.takeNames(func() fuse.Status { return g.RawFileSystem.Unlink(c, in, name) })
}

func (g *nameLock) Rmdir(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return g.takeNames(func() fuse.Status { return g.RawFileSystem.Rmdir(c, in, name) })
}

func (g *nameLock) Rename(c <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	return g.takeNames(func() fuse.Status { return g.RawFileSystem.Rename(c, in, oldName, newName) })
}

// takeNames runs a request that takes names away. To close the last descriptor of a
// file frees its blocks, which takes long for a large file. So that follows the lock.
func (g *nameLock) takeNames(request func() fuse.Status) fuse.Status {
	g.names.Lock()
	status := request()
	unused := g.root.orphans.keepNameless()
	g.names.Unlock()
	for _, p := range unused {
		p.close()
	}
	return status
}

// OnUnmount follows the last request. When the connection ends, also by an ordinary
// unmount, the kernel drops RELEASE requests that it has not sent. So OnUnmount
// closes what is left open.
func (g *nameLock) OnUnmount() {
	g.RawFileSystem.OnUnmount()
	close(g.root.ended)
	g.root.handles.abandonAll()
	g.root.background.Wait()
	g.root.written.end()
	g.root.orphans.forgetAll()
}
