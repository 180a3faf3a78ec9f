package backing

import "golang.org/x/sys/unix"

func statx(fd int, name string, flags int) (Info, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Info{}, err
		}
		return InfoOf(&st), nil
	}
}

// InfoOf takes what is needed from the answer of a statx(2) that asked for
// STATX_BASIC_STATS and STATX_BTIME.
func InfoOf(st *unix.Statx_t) Info {
	info := Info{
		Key:   Key{Ino: st.Ino},
		Mode:  uint32(st.Mode),
		Nlink: st.Nlink,
		Size:  int64(st.Size),
		Mtime: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec),
		Ctime: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		info.Key.Birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return info
}

// openBeneath opens rel below the directory root without ever following a
// symlink or leaving the tree: a directory swapped for a symlink must not lead a
// daemon that runs as root out of it (openat2(2), RESOLVE_BENEATH).
func openBeneath(root int, rel string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(root, rel, &how)
		// EAGAIN: a rename elsewhere raced with the resolution.
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

const (
	oPath       = unix.O_PATH
	atEmptyPath = unix.AT_EMPTY_PATH
)

// FirstHole returns the offset of the first hole of the open file fd
// at or after off, or its size where there is none (lseek(2),
// SEEK_HOLE).
func FirstHole(fd int, off int64) (int64, error) {
	return unix.Seek(fd, off, unix.SEEK_HOLE)
}
