package backing

import (
	"errors"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// StartWriteback makes the kernel begin to write the file's dirty pages
// (sync_file_range(2)). It does not wait for them. A page under write-back is
// write-protected, so the next store into it through a mapping faults, and that
// updates ctime: without this a store to a page that is dirty already changes
// nothing that stat(2) shows.
func StartWriteback(f *os.File) error {
	err := unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ESPIPE) {
		return nil
	}
	return err
}

// fullBelow is how little space, in bytes, is as good as none: a write that does
// not fit takes what there is, and the filesystem keeps some blocks to itself.
const fullBelow = 1 << 20

// Full reports whether the filesystem of the file has no space left to speak of.
func Full(f *os.File) bool {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	return err == nil && int64(st.Bfree)*int64(st.Bsize) < fullBelow
}

// HasWriter reports whether the file can still be changed: through a descriptor open
// for writing, or through a shared writable mapping, which no table of descriptors
// shows. f must be open for reading only. It asks for a read lease (fcntl(2),
// F_SETLEASE), which the kernel grants only where there is no writer, and gives it
// back. Unknown: the filesystem has no leases, or the file is another user's.
func HasWriter(f *os.File) Tristate {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	switch {
	case err == nil:
		unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return No
	case errors.Is(err, unix.EAGAIN):
		return Yes
	}
	return Unknown
}

// SyncFilesystem brings everything of the filesystem that f is on to the disk
// (syncfs(2)), and returns when it is there.
func SyncFilesystem(f *os.File) error {
	for {
		if err := unix.Syncfs(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

// ReopenReadOnly opens the file behind f once more, for reading only.
func ReopenReadOnly(f *os.File) (*os.File, error) {
	return os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDONLY, 0)
}

// FineTimes reports whether a change of a file shows in its ctime even when it
// comes within the same timer tick as the look before (multigrain timestamps,
// Linux 6.13).
var FineTimes = sync.OnceValue(func() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	major, minor := 0, 0
	release := unix.ByteSliceToString(u.Release[:])
	for i, n := 0, &major; i < len(release); i++ {
		switch c := release[i]; {
		case c >= '0' && c <= '9':
			*n = *n*10 + int(c-'0')
		case c == '.' && n == &major:
			n = &minor
		default:
			i = len(release)
		}
	}
	return major > 6 || major == 6 && minor >= 13
})
