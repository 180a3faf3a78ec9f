package put

import "golang.org/x/sys/unix"

// The commands of an open file description's lock (fcntl_locking(2)). Such a
// lock ends when its own description is closed. A POSIX lock would end when the
// process closes any descriptor of the file.
const (
	setLock     = unix.F_OFD_SETLK
	setLockWait = unix.F_OFD_SETLKW
)
