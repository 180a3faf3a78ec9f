//go:build linux

package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
)

// openModes wraps go-fuse's request handlers. The kernel sends the mode of a new file
// as the caller gave it (CAP_DONT_MASK), and openModes applies the caller's umask.
// Before it does, the mode tells how the file is made: under umask 077 each file
// would look like one of mkstemp(3).
type openModes struct{ fuse.RawFileSystem }

// privateMode marks a CREATE with the mode that mkstemp(3) gives. No mode of a file has
// this bit. It is the way to node.Create, to which go-fuse passes the mode alone.
const privateMode = 1 << 31

func (o *openModes) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	private := in.Mode&allModeBits == 0o600
	in.Mode &^= in.Umask
	if private {
		in.Mode |= privateMode
	}
	return o.RawFileSystem.Create(c, in, name, out)
}

func (o *openModes) Tmpfile(c <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	in.Mode &^= in.Umask
	return o.RawFileSystem.Tmpfile(c, in, out)
}

func (o *openModes) Mknod(c <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	in.Mode &^= in.Umask
	return o.RawFileSystem.Mknod(c, in, name, out)
}

func (o *openModes) Mkdir(c <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	in.Mode &^= in.Umask
	return o.RawFileSystem.Mkdir(c, in, name, out)
}

// allModeBits are those of a mode beside the type.
const allModeBits = 0o7777

// originOf says how an open with these flags of open(2) has made its file.
func originOf(flags uint32, private bool) uploader.Origin {
	switch {
	case flags&unix.O_EXCL == 0:
		return uploader.Found
	case flags&unix.O_ACCMODE != unix.O_RDWR:
		return uploader.Exclusive
	case private:
		return uploader.Temporary
	}
	return uploader.ExclusiveReadWrite
}
