//go:build linux

package fusefs

import (
	"context"
	"errors"
	"syscall"

	"uploadfs/uploader/api"
)

// errnos is what programs see of an error of the uploader's; what is not in the
// table is EIO. The whole message is in the log and in the attribute `error`.
var errnos = map[api.Kind]syscall.Errno{
	api.Denied:   syscall.EACCES,
	api.Quota:    syscall.EDQUOT,
	api.TooLarge: syscall.EFBIG,
	api.Refused:  syscall.EINVAL,
}

// errnoOf is the one door through which errors become errnos. Errors of the
// backing filesystem (ENOSPC, EDQUOT, EFBIG, …) pass as they are, also from
// inside the uploader's.
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
