package uploader

import (
	"context"
	"errors"
	"fmt"

	"uploadfs/uploader/api"
	"uploadfs/uploader/state"
)

// RetryBelow is [Uploader.Retry] for every failed or interrupted file in a directory and
// below it, "" for the whole tree. It waits until the mount knows all of them. It returns
// how many are tried again. The error joins those of the others.
func (u *Uploader) RetryBelow(dir string) (n int, err error) {
	select {
	case <-u.recovery.ended:
	case <-u.ctx.Done():
		return 0, context.Cause(u.ctx)
	}
	paths, err := u.journal.Below(dir, []state.State{state.Failed, state.Interrupted})
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, p := range paths {
		if err := u.Retry(p); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

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
