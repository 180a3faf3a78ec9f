//go:build linux

package fusefs

import (
	"context"
	"errors"
	"syscall"

	"uploadfs/uploader/api"
)

// Flush is close(2): it comes at each close of each duplicate of the descriptor,
// after the kernel has written its cached pages back. What it means is for
// the close rule to say.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if h.writer == nil {
		return 0
	}
	pid := callerPid(ctx)
	var err error
	switch h.node.root.rules.judge(pid, h) {
	case verdictNothing:
		err = h.writer.Err()
	case verdictInterrupted:
		h.writer.Interrupt("its writer was killed")
	case verdictLater:
		h.writer.CommitLater()
		err = h.damage()
	case verdictFull:
		h.writer.SendFull()
		err = h.damage()
	case verdictCommit:
		err = h.commit(ctx, pid)
	}
	if err != nil && api.KindOf(err) == api.Removed {
		return 0 // nobody can want the content of a file that has no name
	}
	return errnoOf(err)
}

// commit waits until the content is at the API or never will be, or until the
// caller gives up waiting.
func (h *handle) commit(ctx context.Context, pid uint32) error {
	if h.node.root.CloseBackground {
		h.writer.CommitLater()
		return h.damage()
	}
	wait, cancel := h.node.root.rules.waitContext(ctx, pid)
	defer cancel()
	err := h.writer.Commit(wait)
	if cause := context.Cause(wait); cause != nil && errors.Is(err, cause) {
		return syscall.EINTR
	}
	return err
}

// Release follows the last close, when no request on the handle is left; nobody
// hears its result.
func (h *handle) Release(ctx context.Context) syscall.Errno {
	h.node.root.live.remove(h)
	return errnoOf(h.release())
}

// release closes the backing file first: the uploader looks whether anybody can
// still write to it, and this descriptor must not be who.
func (h *handle) release() error {
	err := h.node.closed(h.file)
	h.closePlain()
	if h.writer != nil {
		h.writer.Close()
	}
	return err
}

// abandon releases the handle when the mount has ended. If changes are left that
// no close has spoken of, the mount was torn away from under their writer, and
// what there is may be half a file.
func (h *handle) abandon() {
	if h.writer != nil {
		h.writer.Interrupt("the mount ended before it was closed")
	}
	if err := h.release(); err != nil {
		h.node.root.Logger.Warn("close of a backing file", "error", err)
	}
}
