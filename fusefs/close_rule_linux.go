package fusefs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"uploadfs/fusefs/procfs"
)

// closeAction is what a FLUSH leads to.
type closeAction int

const (
	reportError     closeAction = iota // nothing has changed: answer what stands
	markInterrupted                    // the writer is being killed: half a file
	commitLater                        // the writer fails: commit, but do not keep it waiting
	sendFull                           // more is to come: send what is full
	commitAndWait                      // the content is whole: commit and wait
)

// callers observes the programs behind requests through /proc. FLUSH arrives at every
// close of every duplicate of a descriptor, often before the first byte and often
// long before the last. RELEASE arrives once, but no program learns its answer. So
// close must report the result of the upload at a FLUSH, and at the right one.
type callers struct {
	mu     sync.Mutex
	device string // of our mount, "major:minor"; "" until mounted
}

func newCallers() *callers { return &callers{} }

// mounted notes the device of the mount.
func (r *callers) mounted(device string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.device = device
}

func (r *callers) mountDevice() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.device
}

// opener names the process behind the request that opens a handle; zero if it
// cannot be told.
func (r *callers) opener(pid uint32) procfs.Process {
	p, err := procfs.ProcessOf(int(pid))
	if err != nil {
		return procfs.Process{}
	}
	return p
}

// judge decides what a FLUSH of the writable handle h by the thread pid means.
func (r *callers) decideClose(pid uint32, h *handle) closeAction {
	if !h.writer.Dirty() {
		return reportError
	}
	status, err := procfs.ReadStatus(int(pid))
	if err != nil {
		return commitAndWait // pid 0, another PID namespace: nothing can be told
	}
	if status.InExec {
		// Closed by execve(2), which returns no error. Until it ends, a reader
		// of the process's stat file waits, ps(1) as well as this daemon. So
		// it must not wait. If this is the last close, RELEASE commits.
		return sendFull
	}
	task, err := procfs.ReadThreadStat(status.PID, int(pid))
	if err != nil {
		return commitAndWait
	}
	exiting := task.Exiting()
	if exiting && task.ExitCode&0x7f != 0 {
		return markInterrupted
	}
	if status.KillPending() {
		return markInterrupted
	}
	if by := h.opener; by.PID != 0 && by.PID != status.PID && by.Alive() {
		return sendFull // however the caller ends: the opener goes on
	}
	if exiting && task.ExitCode != 0 {
		return commitLater
	}
	if r.holdsWritable(status.PID, h.ino) {
		return sendFull
	}
	return commitAndWait
}

// holdsWritable reports whether the process can still write to our file ino
// through a descriptor it has; the one being closed is gone from its table.
func (r *callers) holdsWritable(pid int, ino uint64) bool {
	all, err := procfs.Descriptors(pid)
	if err != nil {
		return false
	}
	var devices map[int]string
	for _, d := range all {
		if d.Ino != ino || !d.Writable() {
			continue
		}
		if devices == nil {
			if devices, err = procfs.MountDevices(pid); err != nil {
				return true
			}
		}
		// A detached mount is in no list. The inode number fits, and a
		// late commit is better than a commit of half a file.
		if device, listed := devices[d.MountID]; !listed || device == r.mountDevice() {
			return true
		}
	}
	return false
}

// signalPoll is the interval at which the signals of a caller are read whose
// request was interrupted.
const signalPoll = 100 * time.Millisecond

// errSignal ends the waiting of a caller that a signal is to end.
var errSignal = errors.New("interrupted by a signal")

// waitContext bounds how long the caller of a request waits for a commit. The
// kernel interrupts a request at any signal that the caller handles, and only
// once: Go's own SIGURG interrupts, as do SIGSTOP and SIGCONT. So after ctx ends,
// the caller's signals are polled. EINTR answers a caller that is gone, or that has
// a signal pending by which programs are ended. The upload goes on in any case.
func (r *callers) waitContext(ctx context.Context, pid uint32) (context.Context, context.CancelFunc) {
	wait, cancel := context.WithCancelCause(context.Background())
	stopped := make(chan struct{})
	watch := func() {
		select {
		case <-ctx.Done():
		case <-stopped:
			return
		}
		t := time.NewTicker(signalPoll)
		defer t.Stop()
		for {
			st, err := procfs.ReadStatus(int(pid))
			if pid != 0 && err != nil || err == nil && st.StopPending() {
				cancel(fmt.Errorf("%w: %w", errSignal, syscall.EINTR))
				return
			}
			select {
			case <-t.C:
			case <-stopped:
				return
			}
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch()
	}()
	return wait, func() {
		close(stopped)
		<-done
		cancel(context.Canceled)
	}
}
