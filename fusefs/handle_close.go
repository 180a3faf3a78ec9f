//go:build linux

package fusefs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"uploadfs/uploader/api"
)

// Flush is close(2). It arrives at each close of each duplicate of the descriptor,
// after the kernel has written its cached pages back. decideClose says what it
// means.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if h.writer == nil {
		return 0
	}
	if h.readOnly != nil {
		h.node.invalidateAttr() // a store through a mapping has set the mtime
	}
	h.told.Store(false)
	h.node.exits.settle(nil)
	tid := callerPid(ctx)
	facts := h.node.root.callers.closeFacts(tid, h)
	action := decideClose(facts)
	if action == awaitExit && !h.decideLater(tid, facts) {
		facts.exit.later = false
		action = decideClose(facts)
	}
	var err error
	switch action {
	case commitAndWait:
		err = h.commit(ctx, tid)
	case awaitMapping:
		err = h.awaitMapping(tid)
	default:
		err = h.apply(action)
	}
	if err == nil {
		return 0
	}
	if kind := api.KindOf(err); kind == api.Removed || kind == api.Interrupted && h.unlinked() {
		return 0 // the content of a file without a name is not uploaded
	}
	return errnoOf(err)
}

// reasonCrashed is why a file that a crashed program has left is interrupted.
const reasonCrashed = "a program that wrote to it crashed"

// unlinked reports whether the file has lost its last name.
func (h *handle) unlinked() bool {
	st, err := statAt(h.fd, "")
	return err == nil && st.Nlink == 0
}

// apply does what a close means and returns its error. It does not wait.
func (h *handle) apply(action closeAction) error {
	switch action {
	case reportError:
		h.told.Store(true)
		return h.writer.Err()
	case markInterrupted:
		h.writer.Interrupt("its writer was killed")
		return nil // the caller learns no answer
	case markHalf:
		h.node.setHalf()
		h.writer.Interrupt(reasonCrashed)
		return nil
	case refuseHalf:
		h.told.Store(true)
		h.writer.Interrupt(reasonCrashed)
		return h.writer.Err()
	case commitLater, commitAndWait:
		h.writer.CommitLater()
	case sendFull:
		h.writer.SendFull()
	}
	return h.lostWrite()
}

// commit waits until the content is at the API or never will be, or until the
// caller gives up waiting.
func (h *handle) commit(ctx context.Context, tid uint32) error {
	if h.node.root.CloseBackground {
		return h.apply(commitLater)
	}
	wait, cancel := h.node.root.callers.waitContext(ctx, tid)
	defer cancel()
	began := time.Now()
	err := h.writer.Commit(wait)
	if waited := h.node.root.Waited; waited != nil {
		waited(time.Since(began))
	}
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
// descriptors that can write to it, and must not find this one. Where a FLUSH is
// to be decided when its caller has ended, or maps the file no more, the content waits
// for that.
func (h *handle) release() error {
	err := h.node.closeFile(h.file)
	h.closeReadOnly()
	if h.writer == nil {
		h.opener.close()
		return err
	}
	h.mappings.release()
	if h.node.exits.pending(h) || h.mappings.pending() {
		h.node.root.background.Go(func() {
			h.exits.Wait()
			h.mappings.wait()
			h.closeWriter()
		})
	} else {
		h.closeWriter()
	}
	return err
}

// closeWriter ends the uploader's open of the file. Changes that no close has
// committed are committed in the background. RELEASE may come long after the last close,
// when another open has written already: its close decides about that.
func (h *handle) closeWriter() {
	if h.node.isHalf(h.number) && !h.told.Load() {
		h.writer.Interrupt(reasonCrashed)
	}
	h.writer.Close()
	h.opener.close()
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
