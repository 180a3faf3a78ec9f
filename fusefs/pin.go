//go:build linux

package fusefs

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"uploadfs/uploader/backing"
)

// pin is an O_PATH descriptor of a backing inode: while it is held, nothing that
// happens to names can make a call hit another file. What O_PATH descriptors do
// not take themselves goes through their link in /proc, which leads to the inode
// and not to a name.
type pin int

func (p pin) close() { unix.Close(int(p)) }

func (p pin) link() string { return "/proc/self/fd/" + strconv.Itoa(int(p)) }

// stat describes the inode.
func (p pin) stat() (stat, error) { return statAt(int(p), "") }

// open opens the inode itself. Only regular files and directories are opened:
// whatever else could block or have effects.
func (p pin) open(flags int) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(p.link(), flags|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "backing file"), nil
}

// openWritable opens a regular file for writing, and for reading: in write-back
// the kernel reads a page before it changes a part of it, and what is written
// has to be read again to be sent.
//
// A daemon that is not root may own a file that it cannot read (mode 0200). It
// gives itself the permission for the moment of the open.
func (p pin) openWritable() (*os.File, error) {
	f, err := p.open(unix.O_RDWR)
	if err != unix.EACCES {
		return f, err
	}
	st, serr := p.stat()
	if serr != nil || int(st.Uid) != os.Geteuid() {
		return nil, err
	}
	if p.chmod(st.perm()|0o600) != nil {
		return nil, err
	}
	f, err = p.open(unix.O_RDWR)
	if cerr := p.chmod(st.perm()); cerr != nil && err == nil {
		f.Close()
		return nil, cerr
	}
	return f, err
}

func (p pin) chmod(mode uint32) error { return unix.Chmod(p.link(), mode) }

// chown sets owner and group; -1 leaves one as it is.
func (p pin) chown(uid, gid int) error {
	return unix.Fchownat(int(p), "", uid, gid, unix.AT_EMPTY_PATH)
}

func (p pin) utimes(atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(int(p), "", []unix.Timespec{atime, mtime}, unix.AT_EMPTY_PATH)
}

// stat is what statx(2) says of an inode.
type stat struct{ unix.Statx_t }

// statMask is everything that getattr and the identity of an inode need.
const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// statAt describes name in the directory fd, not following a symlink, or with ""
// the file fd itself.
func statAt(fd int, name string) (st stat, err error) {
	err = unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, statMask, &st.Statx_t)
	return st, err
}

func (s *stat) key() backing.Key { return backing.InfoOf(&s.Statx_t).Key }

// perm is the mode without the type.
func (s *stat) perm() uint32 { return uint32(s.Mode) &^ unix.S_IFMT }

func (s *stat) kind() uint32 { return uint32(s.Mode) & unix.S_IFMT }

// retry repeats a call that a signal interrupted. The Go runtime sends itself
// signals to preempt goroutines; they are none of the caller's.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

// retryErr is retry for a call that returns nothing but an error.
func retryErr(call func() error) error {
	_, err := retry(func() (struct{}, error) { return struct{}{}, call() })
	return err
}
