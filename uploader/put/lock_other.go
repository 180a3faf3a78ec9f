//go:build !linux

package put

import "golang.org/x/sys/unix"

// The commands of a POSIX lock: x/sys knows no better ones for these systems.
const (
	setLock     = unix.F_SETLK
	setLockWait = unix.F_SETLKW
)
