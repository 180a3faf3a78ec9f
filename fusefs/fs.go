// Package fusefs speaks to the kernel: it makes a backing tree appear as a
// mount, and tells the uploader what happens to its files.
//
// It is a loopback. It answers every request of the kernel by the same call on the
// backing inode, so POSIX is what the backing filesystem makes of it. It adds three
// things. Every change of content passes through an [uploader.Writer]. Every change
// of names is reported to the uploader. The uploader answers for the extended
// attributes that begin with [uploader.AttrPrefix]. There is no HTTP here and no
// retry.
//
// # Who checks what
//
// The kernel checks permissions (default_permissions), keeps file locks (no other
// host sees the mount) and refuses what only a privileged caller may do: user.*
// attributes follow the file's mode, trusted.* need CAP_SYS_ADMIN, and so do
// security.* (commoncap). It leaves system.* to the filesystem, which refuses them:
// the kernel would not enforce a POSIX ACL here, and the file's group would get
// what the ACL denies it. ioctl(2) is not passed on for the same reason.
//
// # From a node to its file
//
// A [node] finds its backing inode by its path in go-fuse's tree of inodes, beneath a
// directory descriptor and never through a symlink. Before the inode is used, its
// number and birth time are compared with the node's identity. An inode whose last
// name is gone is found by a descriptor that is kept for it until the kernel forgets
// it, see orphans. nameLock says why a path can be trusted.
//
// # Locks
//
// nameLock.names is taken first, for the whole of a request that resolves names;
// then node.mu, a leaf, for the list of a node's open descriptors. writtenNodes.mu is
// another leaf, which the uploader takes under locks of its own. No request that
// may wait for something beyond this machine's own disk holds nameLock.names.
//
// The daemon never touches its own mount, with one exception at the start: go-fuse
// opens and polls a name that it answers itself, so that the Go runtime's poller
// sends no POLL requests later.
package fusefs

import (
	"log/slog"
	"os"
	"time"

	"uploadfs/uploader"
	"uploadfs/uploader/backing"
)

// WritePath is how written bytes reach the backing tree.
type WritePath string

const (
	// Auto takes the best path that the kernel offers.
	Auto WritePath = "auto"
	// Passthrough lets the kernel read and write the backing files itself. It
	// needs Linux 6.9 and CAP_SYS_ADMIN.
	Passthrough WritePath = "passthrough"
	// Writeback collects written pages in the kernel's cache, which sends them
	// as large WRITE requests.
	Writeback WritePath = "writeback"
)

// UnseenWriters says what a close means by a program that the daemon cannot look at:
// one of another user for a daemon without privilege, or one in another PID
// namespace.
type UnseenWriters string

const (
	// UnseenBackground commits once, after the last close, which does not wait.
	UnseenBackground UnseenWriters = "background"
	// UnseenCommit commits at every close, which waits. It may publish half a file.
	UnseenCommit UnseenWriters = "commit"
)

// Options are the parts of a mount. Tree, Uploader and Logger are required; they stay
// the caller's and must outlive the mount.
type Options struct {
	Tree     *backing.Tree      // what the mount shows
	Uploader *uploader.Uploader // learns of changes, and answers for attributes
	Logger   *slog.Logger       // for errors that no caller learns of

	// CloseBackground makes close return before the commit ends; the error of the
	// commit shows in the attributes only.
	CloseBackground bool

	// UnseenWriters is what a close means by a program that cannot be observed; "" is
	// UnseenBackground.
	UnseenWriters UnseenWriters

	// Waited is told how long each close has waited for its commit, unless nil. It may
	// be called concurrently.
	Waited func(time.Duration)

	// WritePath is the path to use; "" is Auto.
	WritePath WritePath
}

// MountOptions are what the kernel is told of the mount itself.
type MountOptions struct {
	// Source is the mount's source in /proc/self/mountinfo and the first column of
	// df(1): the state directory, by which clients find the daemon.
	Source string

	// Dir is the directory to mount on, from [OpenMountPoint]; it stays the
	// caller's. nil: Mount resolves and opens its mountPoint itself.
	Dir *os.File

	// Options are those of mount(8)'s -o, one each: allow_other, ro, noexec, ….
	// nosuid and nodev hold unless suid and dev are among them.
	Options []string
}

// FSType is the type of every mount of this package in /proc/self/mountinfo.
const FSType = "fuse." + fsName

const fsName = "uploadfs"
