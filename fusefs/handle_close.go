//go:build linux

package fusefs

import (
	"context"
	"errors"
	"syscall"

	"uploadfs/uploader/api"
)

// Flush is close(2). It arrives at each close of each duplicate of the descriptor,
// after the kernel has written its cached pages back. decideClose says what it
// means.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if h.writer == nil {
		return 0
	}
	pid := callerPid(ctx)
	var err error
	switch h.node.root.callers.decideClose(pid, h) {
	case reportError:
		err = h.writer.Err()
	case markInterrupted:
		h.writer.Interrupt("its writer was killed")
	case commitLater:
		h.writer.CommitLater()
		err = h.lostWrite()
	case sendFull:
		h.writer.SendFull()
		err = h.lostWrite()
	case commitAndWait:
		err = h.commit(ctx, pid)
	}
	if err != nil && api.KindOf(err) == api.Removed {
		return 0 // the content of a file without a name is not uploaded
	}
	return errnoOf(err)
}

// commit waits until the content is at the API or never will be, or until the
// caller gives up waiting.
func (h *handle) commit(ctx context.Context, pid uint32) error {
	if h.node.root.CloseBackground {
		h.writer.CommitLater()
		return h.lostWrite()
	}
	wait, cancel := h.node.root.callers.waitContext(ctx, pid)
	defer cancel()
	err := h.writer.Commit(wait)
	if cause := context.Cause(wait); cause != nil && errors.Is(err, cause) {
		return syscall.EINTR
	}
	return err
}

// Release follows the last close, when no request on the handle is left. No program
// learns its result.
func (h *handle) Release(ctx context.Context) syscall.Errno {
	h.node.root.handles.remove(h)
	return errnoOf(h.release())
}

// release closes the backing file first: the uploader then looks for other
// descriptors that can write to it, and must not find this one.
func (h *handle) release() error {
	err := h.node.closeFile(h.file)
	h.closeReadOnly()
	if h.writer != nil {
		h.writer.Close()
	}
	return err
}

// abandon releases the handle when the mount has ended. Changes without a close
// mean that the mount ended under their writer, and the content may be half a file.
func (h *handle) abandon() {
	if h.writer != nil {
		h.writer.Interrupt("the mount ended before it was closed")
	}
	if err := h.release(); err != nil {
		h.node.root.Logger.Warn("close of a backing file", "error", err)
	}
}
