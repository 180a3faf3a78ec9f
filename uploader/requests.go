package uploader

import (
	"context"
	"errors"

	"uploadfs/uploader/api"
)

// Cancel ends the upload of a file. The file stays as it is, `interrupted`, and its
// Upload at the API is cancelled behind. The error says why there is nothing to end.
func (u *Uploader) Cancel(path string) error {
	info, err := u.tree.Stat(path)
	if err != nil {
		return api.LocalError("cancel", err)
	}
	if !info.Regular() {
		return api.LocalError("cancel", errNotAFile)
	}
	s, err := u.refKey(info.Key, path)
	if err != nil {
		return err
	}
	defer u.unref(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	s.observer.poll()
	d := s.decide(eventCancelled)
	if d.err == nil {
		s.stopDeferring()
		s.leftFailed = false
		s.carryOut(d)
	}
	return d.err
}

var errNotAFile = errors.New("not a regular file")
