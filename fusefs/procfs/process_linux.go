package procfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process names one life of a process: IDs are used again, start times are not.
// The zero value names none.
type Process struct {
	PID   int
	Start uint64 // clock ticks since boot
}

// ProcessOf finds the process of the thread tid. The error says that it cannot be
// seen from here: the thread has ended, or is in another PID namespace (tid 0).
func ProcessOf(tid int) (Process, error) {
	status, err := ReadStatus(tid)
	if err != nil {
		return Process{}, err
	}
	st, err := ReadStat(status.PID)
	return Process{PID: status.PID, Start: st.Start}, err
}

// Processes lists the IDs of all processes that can be seen from here.
func Processes() ([]int, error) { return numbers("/proc") }

// numbers lists the entries of a directory that are numbers.
func numbers(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	list := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	return list, nil
}

// Alive reports whether the process is still there and not on its way out. One
// whose main thread has ended lives as long as another thread does.
func (p Process) Alive() bool {
	st, err := ReadStat(p.PID)
	if err != nil || st.Start != p.Start {
		return false
	}
	if !st.ended() {
		return true
	}
	tid, err := livingThread(p.PID)
	return err == nil && tid != 0
}

// ExitStatus is how the process has ended, while its parent has not waited for it; ok is
// false if this cannot be seen, or not from here.
func (p Process) ExitStatus() (status syscall.WaitStatus, ok bool) {
	st, err := ReadStat(p.PID)
	if err != nil || st.Start != p.Start || st.State != 'Z' || !MayTrace(p.PID, p.PID) {
		return 0, false
	}
	return syscall.WaitStatus(st.ExitCode), true
}

// livingThread finds a thread of the process pid that has not ended; 0 if there is
// none.
func livingThread(pid int) (tid int, err error) {
	tids, err := numbers(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	for _, tid := range tids {
		if st, err := ReadThreadStat(pid, tid); err == nil && !st.ended() {
			return tid, nil
		}
	}
	return 0, nil
}

// Stat is what proc_pid_stat(5) tells of a thread or a process.
type Stat struct {
	State    byte   // R, S, Z, …
	Flags    uint64 // the kernel's PF_ flags
	Threads  int    // of the process
	Start    uint64 // clock ticks since boot
	ExitCode int    // as wait(2) gives it; 0 unless the reader may trace the task
}

// Flags of the kernel's tasks, from include/linux/sched.h.
const (
	pfExiting    = 0x4   // PF_EXITING: in exit(2), without descriptors
	pfForkNoExec = 0x40  // PF_FORKNOEXEC: forked, and never called execve(2)
	pfDumpCore   = 0x200 // PF_DUMPCORE: ended by a signal that dumps core
)

// Exiting reports whether the task is in exit(2).
func (s Stat) Exiting() bool { return s.Flags&pfExiting != 0 }

// NeverExeced reports whether the task was forked and never called execve(2). For a
// process that is a question to its main thread.
func (s Stat) NeverExeced() bool { return s.Flags&pfForkNoExec != 0 }

// DumpsCore reports whether a single-threaded process is being ended by a signal
// that dumps core. In a process of many threads the flag means nothing.
func (s Stat) DumpsCore() bool { return s.Flags&pfDumpCore != 0 && s.Threads == 1 }

// initialPIDNamespace is the name of the kernel's first PID namespace, from
// include/linux/proc_ns.h.
const initialPIDNamespace = "pid:[4026531836]"

// InInitialPIDNamespace reports whether this process sees all processes of the
// machine.
func InInitialPIDNamespace() (bool, error) {
	name, err := os.Readlink("/proc/self/ns/pid")
	return name == initialPIDNamespace, err
}

// MayTrace reports whether this process may read everything of the thread tid of
// the process pid (ptrace(2), PTRACE_MODE_READ): its exit code and its descriptors.
func MayTrace(pid, tid int) bool {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/task/%d/fdinfo", pid, tid), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// ended reports whether the task can run no more of its program.
func (s Stat) ended() bool { return s.Exiting() || s.State == 'Z' || s.State == 'X' }

// ReadStat reads the stat file of the process pid.
func ReadStat(pid int) (Stat, error) { return readStat(fmt.Sprintf("/proc/%d/stat", pid)) }

// ReadThreadStat reads the stat file of the thread tid of the process pid.
func ReadThreadStat(pid, tid int) (Stat, error) {
	return readStat(fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid))
}

func readStat(name string) (Stat, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return Stat{}, err
	}
	st, ok := parseStat(string(b))
	if !ok {
		return Stat{}, fmt.Errorf("%s: not a stat file", name)
	}
	return st, nil
}

// parseStat parses a stat file. Its second field is the command's name in
// parentheses, which may hold anything, so the fields are counted from its end.
func parseStat(s string) (st Stat, ok bool) {
	end := strings.LastIndexByte(s, ')')
	f := strings.Fields(s[end+1:])
	if end < 0 || len(f) < 50 {
		return Stat{}, false
	}
	st.State = f[0][0]
	st.Flags, _ = strconv.ParseUint(f[9-3], 10, 64)
	st.Threads, _ = strconv.Atoi(f[20-3])
	st.Start, _ = strconv.ParseUint(f[22-3], 10, 64)
	st.ExitCode, _ = strconv.Atoi(f[52-3])
	return st, true
}
