package fusefs

import (
	"context"
	"slices"
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

// exitWatches are the decisions about a file that wait for the end of a program. One
// program has one at a time for each handle.
type exitWatches struct {
	mu   sync.Mutex
	list []*exitWatch // in the order of their first FLUSHes
}

// exitWatch is the decision about a program's FLUSHes of a handle.
type exitWatch struct {
	handle *handle
	tid    uint32
	end    ending
	done   chan struct{} // closed when it is decided

	facts closeFacts // of the last FLUSH; protected by exitWatches.mu
	again bool       // a FLUSH came since the facts were read; the same
}

// pending reports whether a decision about the handle has not been made.
func (w *exitWatches) pending(h *handle) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.list, func(o *exitWatch) bool { return o.handle == h })
}

// start adds a decision. One about the same program takes the facts instead: its last
// FLUSH is the one that counts.
func (w *exitWatches) start(watch *exitWatch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.list {
		if o.handle == watch.handle && o.tid == watch.tid && !o.end.within(0) {
			o.facts, o.again = watch.facts, true
			watch.end.close()
			return
		}
	}
	w.list = append(w.list, watch)
	watch.handle.exits.Go(func() { watch.handle.decideEnding(watch) })
}

// read returns the facts of the last FLUSH.
func (w *exitWatches) read(watch *exitWatch) closeFacts {
	w.mu.Lock()
	defer w.mu.Unlock()
	watch.again = false
	return watch.facts
}

// finish ends a decision. It reports false if that is not possible because a FLUSH
// came since the facts were read.
func (w *exitWatches) finish(watch *exitWatch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if watch.again {
		return false
	}
	w.list = slices.DeleteFunc(w.list, func(o *exitWatch) bool { return o == watch })
	watch.end.close()
	close(watch.done)
	return true
}

// settle waits for the decisions that began before this one, nil for all, and whose
// programs have ended in a way that is known. So it does not wait for a program: a
// helper that its opener has waited for is decided before the opener's next close.
func (w *exitWatches) settle(before *exitWatch) {
	w.mu.Lock()
	var known []*exitWatch
	for _, o := range w.list {
		if o == before {
			break
		}
		if o.end.known() {
			known = append(known, o)
		}
	}
	w.mu.Unlock()
	for _, o := range known {
		<-o.done
	}
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
	h.node.exits.start(&exitWatch{handle: h, tid: tid, end: end, facts: f, done: make(chan struct{})})
	return true
}

// decideEnding decides as often as FLUSHes ask for it.
func (h *handle) decideEnding(watch *exitWatch) {
	for {
		h.decideEnded(watch)
		if h.node.exits.finish(watch) {
			return
		}
	}
}

// decideEnded waits for the end of the program and carries out what its last FLUSH
// means. If it lives, RELEASE commits.
func (h *handle) decideEnded(watch *exitWatch) {
	exits := &h.node.exits
	if exits.read(watch).exiting != yes && !watch.end.within(exitGrace) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), exitPatience)
	defer cancel()
	status, err := watch.end.status(ctx)
	if err != nil {
		h.apply(markInterrupted) // how it ended is unknown
		return
	}
	exits.settle(watch)
	f := exits.read(watch)
	f.dirty, f.half = h.writer.Dirty(), h.node.isHalf(h.number)
	f.exiting, f.exit = yes, exitFact{known: true, status: status}
	h.apply(decideClose(f))
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

// known reports whether the parent has waited for both: then status does not wait.
func (e ending) known() bool { return e.thread.Reaped() && e.process.Reaped() }

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
