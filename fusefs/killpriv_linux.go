package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// killPriv wraps go-fuse's request handlers. Before a buffered write by a program
// that may not keep set-id bits (CAP_FSETID) the kernel sends a SETATTR. A WRITE with
// O_DIRECT it marks instead, and go-fuse shows the mark to no node. So killPriv
// makes the SETATTR. The kernel has asked for the capability itself: a user ID of 0
// would not say.
type killPriv struct{ fuse.RawFileSystem }

func (k killPriv) Write(c <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if status := k.dropSetID(c, in); !status.Ok() {
		return 0, status
	}
	return k.RawFileSystem.Write(c, in, data)
}

func (k killPriv) Writev(c <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if status := k.dropSetID(c, in); !status.Ok() {
		return 0, status
	}
	return k.RawFileSystem.Writev(c, in, data)
}

// dropSetID clears set-id bits before a marked WRITE. The bits are gone, and the
// kernel knows it, before the first byte changes.
func (k killPriv) dropSetID(c <-chan struct{}, in *fuse.WriteIn) fuse.Status {
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID == 0 {
		return fuse.OK
	}
	var now fuse.AttrOut
	get := fuse.GetAttrIn{InHeader: in.InHeader, Flags_: fuse.FUSE_GETATTR_FH, Fh_: in.Fh}
	if status := k.RawFileSystem.GetAttr(c, &get, &now); !status.Ok() || now.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return status
	}
	var set fuse.SetAttrIn
	set.InHeader, set.Fh = in.InHeader, in.Fh
	set.Valid = fuse.FATTR_FH | fuse.FATTR_KILL_SUIDGID
	return k.RawFileSystem.SetAttr(c, &set, &now)
}
