package fusefs

import (
	"context"
	"sync"
	"syscall"
	"time"

	"uploadfs/fusefs/procfs"
)

// How long a decision waits for the end of a program.
const (
	// exitPatience is for a program that is exiting: its parent must wait for
	// it before the kernel tells how it ended.
	exitPatience = 10 * time.Second
	// exitGrace is for a program of which it is unknown whether it is exiting:
	// one that still lives then has closed the file itself.
	exitGrace = 2 * time.Second
)

// exitWatches are the decisions about a handle that wait for the end of a program.
// One program has one at a time.
type exitWatches struct {
	mu      sync.Mutex
	running map[uint32]bool // by thread
	wg      sync.WaitGroup
}

func (w *exitWatches) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running) > 0
}

// wait returns when all have been decided. No other may begin.
func (w *exitWatches) wait() { w.wg.Wait() }

// start runs decide in the background unless there is a decision for the thread
// already.
func (w *exitWatches) start(tid uint32, decide func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running[tid] {
		return
	}
	if w.running == nil {
		w.running = map[uint32]bool{}
	}
	w.running[tid] = true
	w.wg.Go(func() {
		decide()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.running, tid)
	})
}

// decideLater decides a FLUSH of the thread tid when the thread has ended, and how is
// known. It reports false if that cannot be observed.
func (h *handle) decideLater(tid uint32, f closeFacts) bool {
	end, err := openEnding(tid)
	if err != nil {
		return false
	}
	f.openerGoesOn() // as it is at the close, which is remembered
	h.writer.SendFull()
	h.exits.start(tid, func() {
		defer end.close()
		if f.exiting != yes && !end.within(exitGrace) {
			return // it lives: RELEASE commits
		}
		ctx, cancel := context.WithTimeout(context.Background(), exitPatience)
		defer cancel()
		status, err := end.status(ctx)
		if err != nil {
			h.apply(markInterrupted) // how it ended is unknown
			return
		}
		f.dirty, f.half = h.writer.Dirty(), h.node.isHalf(h.number)
		f.exiting, f.exit = yes, exitFact{known: true, status: status}
		h.apply(decideClose(f))
	})
	return true
}

// ending observes the end of a thread and of its process. A thread that ended before
// its process has a status of its own, and so has a main thread.
type ending struct{ thread, process *procfs.PIDFD }

func openEnding(tid uint32) (ending, error) {
	thread, err := procfs.OpenPIDFD(int(tid))
	if err != nil {
		return ending{}, err
	}
	pid, err := thread.PID()
	if err != nil {
		thread.Close()
		return ending{}, err
	}
	process, err := procfs.OpenPIDFD(pid)
	if err != nil {
		thread.Close()
		return ending{}, err
	}
	return ending{thread, process}, nil
}

func (e ending) close() {
	e.thread.Close()
	e.process.Close()
}

// within reports whether the thread ends in that time.
func (e ending) within(d time.Duration) bool {
	ended, err := e.thread.ExitsWithin(d)
	return err != nil || ended
}

// status waits for the end of both, and returns the worse of their statuses.
func (e ending) status(ctx context.Context) (syscall.WaitStatus, error) {
	thread, err := e.thread.WaitExit(ctx)
	if err != nil || thread.Signaled() {
		return thread, err
	}
	process, err := e.process.WaitExit(ctx)
	if err != nil || process != 0 {
		return process, err
	}
	return thread, nil
}
