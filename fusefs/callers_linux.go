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

// callers observes the programs behind requests through /proc. FLUSH arrives at every
// close of every duplicate of a descriptor, often before the first byte and often
// long before the last. RELEASE arrives once, but no program learns its answer. So
// close must report the result of the upload at a FLUSH, and at the right one.
type callers struct {
	unseen UnseenWriters
	notes  mountNotes

	mu     sync.Mutex
	device string // of our mount, "major:minor"; "" until mounted
}

func newCallers(o Options) *callers {
	unseen := o.UnseenWriters
	if unseen == "" {
		unseen = UnseenBackground
	}
	return &callers{unseen: unseen, notes: mountNotes{log: o.Logger}}
}

// mounted notes what the mount is.
func (c *callers) mounted(m procfs.Mount, options []string) {
	c.notes.expect(options, m.Shared)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.device = m.Device
}

func (c *callers) mountDevice() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.device
}

// opener is the process that opened a handle; the zero value is an unknown one.
type opener struct {
	procfs.Process
	pidfd *procfs.PIDFD // where /proc hides the process; else nil
}

// opener identifies the process behind the request that opens a handle. The caller
// closes what it returns.
func (c *callers) opener(tid uint32) opener {
	if p, err := procfs.ProcessOf(int(tid)); err == nil {
		return opener{Process: p}
	}
	pidfd, err := procfs.OpenPIDFD(int(tid))
	if err != nil {
		return opener{}
	}
	pid, err := pidfd.PID()
	if err != nil {
		pidfd.Close()
		return opener{}
	}
	return opener{procfs.Process{PID: pid}, pidfd}
}

func (o opener) close() {
	if o.pidfd != nil {
		o.pidfd.Close()
	}
}

// lives reports whether the process has not ended.
func (o opener) lives() fact {
	switch {
	case o.PID == 0:
		return unknown
	case o.pidfd == nil:
		return factOf(o.Alive())
	}
	ended, err := o.pidfd.Exited()
	if err != nil {
		return unknown
	}
	return factOf(!ended)
}

// closeFacts gathers the facts about a FLUSH of the writable handle h by the thread
// tid, which waits for the answer.
func (c *callers) closeFacts(tid uint32, h *handle) closeFacts {
	f := closeFacts{dirty: h.writer.Dirty(), half: h.node.isHalf(h.number), unseen: c.unseen}
	mappable := h.node.mappable.Load()
	f.mapsIt = func() fact { return no }
	if !f.dirty && !mappable {
		return f
	}
	f.neverExeced = func() fact { return unknown }
	f.exit.later = tid != 0 && procfs.TellsExitStatus()
	pid := 0
	status, err := procfs.ReadStatus(int(tid))
	if err == nil {
		pid = status.PID
		if f.inExec = factOf(status.InExec); status.InExec {
			return f
		}
		c.taskFacts(&f, int(tid), status)
	} else {
		c.notes.met()
		if pidfd, err := procfs.OpenPIDFD(int(tid)); err == nil {
			pid, _ = pidfd.PID() // 0 if it cannot be told
			pidfd.Close()
		}
	}
	f.openerGoesOn = sync.OnceValue(func() fact { return c.goesOn(h, pid) })
	f.holdsAnother = func() fact {
		if pid == 0 {
			return unknown
		}
		return c.hasWritable(pid, h.ino)
	}
	if mappable {
		f.mapsIt = sync.OnceValue(func() fact {
			if pid == 0 {
				return unknown
			}
			return c.mapsToWrite(pid, h.ino)
		})
	}
	return f
}

// mapsToWrite reports whether what the process pid stores to a mapping goes into our
// file ino.
func (c *callers) mapsToWrite(pid int, ino uint64) fact {
	mapped, err := procfs.MapsToWrite(pid, c.mountDevice(), ino)
	if err != nil {
		return unknown
	}
	return factOf(mapped)
}

// taskFacts fills in what /proc tells of the calling thread.
func (c *callers) taskFacts(f *closeFacts, tid int, status procfs.Status) {
	task, err := procfs.ReadThreadStat(status.PID, tid)
	if err != nil {
		return
	}
	f.exiting = factOf(task.Exiting() || status.KillPending())
	// Only of a helper: a close by the opener itself does not pay for it.
	f.neverExeced = sync.OnceValue(func() fact {
		leader, err := procfs.ReadStat(status.PID)
		if err != nil {
			return unknown
		}
		return factOf(leader.NeverExeced())
	})
	if f.exiting == no {
		return
	}
	// Any signal that ends a process leaves SIGKILL pending for its threads, and so
	// does an exit_group(2) by one of them. SIGKILL itself is pending for the process.
	f.suspectKilled = status.StopPending() || task.DumpsCore()
	f.suspectCrashed = status.KillPending() && !status.OtherPending() || task.DumpsCore()
	if !task.Exiting() {
		if status.SharedPending&procfs.SignalSet(syscall.SIGKILL) != 0 {
			f.exit.known, f.exit.status = true, syscall.WaitStatus(syscall.SIGKILL)
		}
		return
	}
	// The kernel shows the exit code to a reader that may trace the task. A thread
	// that was ending already when its process was ended has a code of its own and
	// SIGKILL pending, and how the process ends is unknown.
	switch {
	case !procfs.MayTrace(status.PID, tid):
		c.notes.met()
	case task.ExitCode != 0 || !status.KillPending():
		f.exit.known, f.exit.status = true, syscall.WaitStatus(task.ExitCode)
	}
}

// goesOn reports whether another process than pid opened the handle, lives, and may
// still write to the file.
func (c *callers) goesOn(h *handle, pid int) fact {
	if h.opener.PID == 0 || pid == 0 {
		return unknown
	}
	if h.opener.PID == pid {
		return no
	}
	if lives := h.opener.lives(); lives != yes {
		return lives
	}
	if c.hasWritable(h.opener.PID, h.ino) == no {
		return no
	}
	return yes // it has the file open, or its table cannot be read
}

// hasWritable reports whether the process pid can write to our file ino through a
// descriptor that it has. A descriptor that is being closed is gone from its table.
func (c *callers) hasWritable(pid int, ino uint64) fact {
	var devices map[int]string
	found := no
	err := procfs.EachDescriptor(pid, func(d procfs.Descriptor) bool {
		if d.Ino != ino || !d.Writable() {
			return true
		}
		if devices == nil {
			var err error
			if devices, err = procfs.MountDevices(pid); err != nil {
				found = yes
				return false
			}
		}
		// A detached mount is in no list. The inode number fits, and a
		// late commit is better than a commit of half a file.
		if device, listed := devices[d.MountID]; !listed || device == c.mountDevice() {
			found = yes
		}
		return found == no
	})
	if err != nil {
		c.notes.met()
		return unknown
	}
	return found
}

// signalPoll is the interval at which the signals of a caller are read whose
// request was interrupted.
const signalPoll = 100 * time.Millisecond

// errSignal ends the waiting of a caller that a signal is to end.
var errSignal = errors.New("interrupted by a signal")

// unseenPatience is how long a caller waits on whose signals cannot be read, after
// its request was interrupted.
const unseenPatience = 5 * time.Second

// waitContext bounds how long the caller of a request waits for a commit. The
// kernel interrupts a request at any signal that the caller handles, and only
// once: Go's own SIGURG interrupts, as do SIGSTOP and SIGCONT. So after ctx ends,
// the caller's signals are polled. EINTR answers a caller that is gone, that has a
// signal pending by which programs are ended, or whose signals could not be read
// for unseenPatience. The upload goes on in any case.
func (c *callers) waitContext(ctx context.Context, tid uint32) (context.Context, context.CancelFunc) {
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
		patience := time.NewTimer(unseenPatience)
		defer patience.Stop()
		for {
			ends := c.mustEnd(tid)
			if ends == unknown {
				select {
				case <-patience.C:
					ends = yes
				default:
				}
			}
			if ends == yes {
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

// mustEnd reports whether a signal is about to end the thread tid, or has.
func (c *callers) mustEnd(tid uint32) fact {
	status, err := procfs.ReadStatus(int(tid))
	if err == nil {
		return factOf(status.StopPending())
	}
	c.notes.met()
	p, err := procfs.OpenPIDFD(int(tid))
	if err != nil {
		if tid != 0 && errors.Is(err, syscall.ESRCH) {
			return yes // it is gone
		}
		return unknown
	}
	p.Close()
	return unknown // /proc hides it
}
