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

// verdict is what a FLUSH means: one of the rules of judge.
type verdict int

const (
	verdictNothing     verdict = iota // nothing has changed: answer what stands
	verdictInterrupted                // the writer is being killed: half a file
	verdictLater                      // the writer fails: commit, but do not keep it waiting
	verdictFull                       // more is to come: send what is full
	verdictCommit                     // the content is whole: commit and wait
)

// rules decide what a FLUSH means, by what /proc tells of the caller. FLUSH comes
// at every close of every duplicate of a descriptor, often before the first byte
// and often long before the last; RELEASE comes once, but nobody hears its answer.
// So the truth about a close has to be told at a FLUSH, and at the right one.
type rules struct {
	mu     sync.Mutex
	device string // of our mount, "major:minor"; "" until mounted
}

func newRules() *rules { return &rules{} }

// mounted learns the mount's device from the mount point it has just got.
func (r *rules) mounted(mountPoint string) error {
	mounts, err := procfs.Mounts()
	device := ""
	for _, m := range mounts {
		if m.Point == mountPoint {
			device = m.Device // the last one is on top
		}
	}
	if err == nil && device == "" {
		err = fmt.Errorf("%s is not in the list of mounts", mountPoint)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.device = device
	return err
}

func (r *rules) ours() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.device
}

// opener names the process behind the request that opens a handle; zero if it
// cannot be told.
func (r *rules) opener(pid uint32) procfs.Process {
	p, err := procfs.ProcessOf(int(pid))
	if err != nil {
		return procfs.Process{}
	}
	return p
}

// judge decides what a FLUSH of the writable handle h by the thread pid means.
func (r *rules) judge(pid uint32, h *handle) verdict {
	if !h.writer.Dirty() {
		return verdictNothing
	}
	status, err := procfs.ReadStatus(int(pid))
	if err != nil {
		return verdictCommit // pid 0, another PID namespace: nothing can be told
	}
	if status.InExec {
		// Closed by execve(2), which cannot pass on an error. Until it ends,
		// whoever reads the process's stat waits, ps(1) as well as we, so it
		// must not wait for anything. If this is the last close, RELEASE commits.
		return verdictFull
	}
	task, err := procfs.ReadThreadStat(status.PID, int(pid))
	if err != nil {
		return verdictCommit
	}
	exiting := task.Exiting()
	if exiting && task.ExitCode&0x7f != 0 {
		return verdictInterrupted
	}
	if status.KillPending() {
		return verdictInterrupted
	}
	if by := h.opener; by.PID != 0 && by.PID != status.PID && by.Alive() {
		return verdictFull // however the caller ends: the opener goes on
	}
	if exiting && task.ExitCode != 0 {
		return verdictLater
	}
	if r.holdsWritable(status.PID, h.ino) {
		return verdictFull
	}
	return verdictCommit
}

// holdsWritable reports whether the process can still write to our file ino
// through a descriptor it has; the one being closed is gone from its table.
func (r *rules) holdsWritable(pid int, ino uint64) bool {
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
		// A mount that has been detached is in no list. The number fits,
		// and a commit too late is better than one of half a file.
		if device, listed := devices[d.MountID]; !listed || device == r.ours() {
			return true
		}
	}
	return false
}

// signalPoll is how often a caller whose request was interrupted is looked at.
const signalPoll = 100 * time.Millisecond

// errSignal ends the waiting of a caller that somebody wants to end.
var errSignal = errors.New("interrupted by a signal")

// waitContext bounds how long the caller of a request waits for a commit. The
// kernel interrupts a request at any signal that the caller handles, and only
// once, so ctx says little: Go's own SIGURG interrupts, as do SIGSTOP and
// SIGCONT. So once it has ended, the caller is looked at: one that has a signal
// pending by which programs are ended, or that is gone, is let go with EINTR.
// The upload goes on in any case.
func (r *rules) waitContext(ctx context.Context, pid uint32) (context.Context, context.CancelFunc) {
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
