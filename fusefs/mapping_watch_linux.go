package fusefs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"uploadfs/fusefs/procfs"
)

// A program may close a file that it maps, and go on storing to it: its close is not its
// last word. Nothing of the file is committed before the mapping has gone. That follows
// no request in passthrough, so the daemon looks.

// mappingPoll is how often it is looked whether a program still maps a file.
const mappingPoll = time.Second

// reasonKilledMapped is why a file is interrupted that a killed program had mapped.
const reasonKilledMapped = "a program that had it mapped was killed"

// mappingWatches are the programs that have closed a handle and map its file.
type mappingWatches struct {
	mu       sync.Mutex
	running  map[int]*mappingWatch // by process
	released chan struct{}         // closed when the handle is: in write-back its mappings have gone
	wg       sync.WaitGroup
}

// mappingWatch is one program that maps a file it has closed.
type mappingWatch struct {
	process procfs.Process
	pidfd   *procfs.PIDFD // nil where the kernel has none
	closed  uint64        // what the content was at the last close by the program; mappingWatches.mu guards it
}

func (w *mappingWatches) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running) > 0
}

// release tells that the handle is released. No other watch may begin.
func (w *mappingWatches) release() { close(w.released) }

// wait returns when no program maps the file that has closed the handle.
func (w *mappingWatches) wait() { w.wg.Wait() }

// awaitMapping lets the content wait until the mapping of the caller, the thread tid, has
// gone. The end of the handle waits for that.
func (h *handle) awaitMapping(tid uint32) error {
	closed := h.writer.CloseMapped()
	process, err := procfs.ProcessOf(int(tid))
	if err != nil {
		return h.lostWrite() // it was there a moment ago: RELEASE decides
	}
	m := &h.mappings
	m.mu.Lock()
	defer m.mu.Unlock()
	if watch := m.running[process.PID]; watch != nil && watch.process == process {
		watch.closed = closed
		return h.lostWrite()
	}
	watch := &mappingWatch{process: process, closed: closed}
	if pidfd, err := procfs.OpenPIDFD(process.PID); err == nil {
		watch.pidfd = pidfd
	}
	m.running[process.PID] = watch
	m.wg.Go(func() {
		h.watchMapping(watch)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.running[process.PID] == watch {
			delete(m.running, process.PID)
		}
		if watch.pidfd != nil {
			watch.pidfd.Close()
		}
	})
	return h.lostWrite()
}

// watchMapping waits until the program does not map the file any more, and decides what
// its end means. Where it lives on, or has ended by itself, the handle's end commits.
func (h *handle) watchMapping(w *mappingWatch) {
	interrupt := func(reason string) {
		h.mappings.mu.Lock()
		closed := w.closed
		h.mappings.mu.Unlock()
		h.writer.InterruptChanged(closed, reason)
	}
	t := time.NewTicker(mappingPoll)
	defer t.Stop()
	for released := h.mappings.released; ; {
		select {
		case <-t.C:
		case <-released:
			released = nil
		case <-h.node.root.ended:
			h.writer.Interrupt("the mount ended while a program had it mapped")
			return
		}
		if h.node.root.callers.mapsToWrite(w.process.PID, h.ino) == yes {
			continue
		}
		// An exiting program gives its mappings up first.
		if w.process.Alive() {
			return
		}
		break
	}
	if signaled, err := w.signaled(); err != nil {
		if procfs.TellsExitStatus() {
			interrupt(reasonKilledMapped + ", or its end is unknown")
		}
	} else if signaled {
		interrupt(reasonKilledMapped)
	}
}

// signaled reports whether a signal has ended the program. The error says that it is not
// known.
func (w *mappingWatch) signaled() (bool, error) {
	if w.pidfd == nil {
		return false, fmt.Errorf("process %d: %w", w.process.PID, procfs.ErrNoExitStatus)
	}
	if _, err := w.pidfd.ExitsWithin(exitPatience); err != nil {
		return false, err
	}
	if status, ok := w.process.ExitStatus(); ok {
		return status.Signaled(), nil // its parent may never wait for it
	}
	ctx, cancel := context.WithTimeout(context.Background(), exitPatience)
	defer cancel()
	status, err := w.pidfd.WaitExit(ctx)
	return status.Signaled(), err
}
