//go:build linux

package fusefs

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"uploadfs/uploader/backing"
)

// pathFD is an O_PATH descriptor of a backing inode. While it is open, a rename
// cannot lead a call to another file. Calls that refuse O_PATH descriptors go
// through the descriptor's link in /proc, which leads to the inode, not to a name.
type pathFD int

func (p pathFD) close() { unix.Close(int(p)) }

// duplicate is another descriptor of the same inode.
func (p pathFD) duplicate() (pathFD, error) {
	fd, err := unix.FcntlInt(uintptr(p), unix.F_DUPFD_CLOEXEC, 0)
	return pathFD(fd), err
}

func (p pathFD) link() string { return "/proc/self/fd/" + strconv.Itoa(int(p)) }

// stat describes the inode.
func (p pathFD) stat() (stat, error) { return statAt(int(p), "") }

// info describes the inode for the uploader.
func (p pathFD) info() (backing.Info, error) { return backing.StatFd(int(p)) }

// open opens the inode itself. The caller makes sure that it is a regular file or
// a directory: to open anything else may block or have effects.
func (p pathFD) open(flags int) (*os.File, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Open(p.link(), flags|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "backing file"), nil
}

// openAsOwner opens for writing and reading a regular file whose mode forbids that to
// its owner, which the daemon must be. The mode is as before when it returns.
func (p pathFD) openAsOwner() (*os.File, error) {
	st, err := p.stat()
	if err != nil || int(st.Uid) != os.Geteuid() || p.chmod(st.perm()|0o600) != nil {
		return nil, unix.EACCES
	}
	f, err := p.open(unix.O_RDWR)
	if cerr := p.chmod(st.perm()); cerr != nil && err == nil {
		f.Close()
		return nil, cerr
	}
	return f, err
}

func (p pathFD) chmod(mode uint32) error { return unix.Chmod(p.link(), mode) }

// chown sets owner and group; -1 leaves one as it is.
func (p pathFD) chown(uid, gid int) error {
	return unix.Fchownat(int(p), "", uid, gid, unix.AT_EMPTY_PATH)
}

func (p pathFD) utimes(atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(int(p), "", []unix.Timespec{atime, mtime}, unix.AT_EMPTY_PATH)
}

// stat is what statx(2) says of an inode.
type stat struct{ unix.Statx_t }

// statMask is what getattr and the identity of an inode need.
const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// statAt describes name in the directory fd, without following a symlink; an empty
// name means the file fd itself.
func statAt(fd int, name string) (st stat, err error) {
	err = unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, statMask, &st.Statx_t)
	return st, err
}

func (s *stat) key() backing.Key { return backing.InfoOf(&s.Statx_t).Key }

// perm is the mode without the type.
func (s *stat) perm() uint32 { return uint32(s.Mode) &^ unix.S_IFMT }

func (s *stat) fileType() uint32 { return uint32(s.Mode) & unix.S_IFMT }

// retryEINTR repeats a call that a signal interrupted: the Go runtime sends itself
// signals to preempt goroutines.
func retryEINTR[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

// retryEINTRErr is retryEINTR for a call that returns only an error.
func retryEINTRErr(call func() error) error {
	_, err := retryEINTR(func() (struct{}, error) { return struct{}{}, call() })
	return err
}
