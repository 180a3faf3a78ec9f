//go:build linux

package fusefs

import (
	"context"
	"errors"
	"syscall"

	"uploadfs/uploader/api"
)

// errnos is what a program sees of an uploader's error; EIO stands for every kind
// that is not in the table. The log and the attribute `error` have the message.
var errnos = map[api.Kind]syscall.Errno{
	api.Denied:   syscall.EACCES,
	api.Quota:    syscall.EDQUOT,
	api.TooLarge: syscall.EFBIG,
	api.Refused:  syscall.EINVAL,
}

// errnoOf is the only function that turns errors into errnos. Errors of the backing
// filesystem (ENOSPC, EDQUOT, EFBIG, …) stay as they are, also inside an
// uploader's error.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return syscall.ETIMEDOUT // of a close; the upload goes on
	}
	var e *api.Error
	if errors.As(err, &e) && e.Kind != api.Local && e.Kind != api.Damaged {
		if errno, ok := errnos[e.Kind]; ok {
			return errno
		}
		return syscall.EIO
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
