package procfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
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

// Alive reports whether the process is still there and not on its way out.
func (p Process) Alive() bool {
	st, err := ReadStat(p.PID)
	return err == nil && st.Start == p.Start && !st.Exiting() && st.State != 'Z' && st.State != 'X'
}

// Stat is what proc_pid_stat(5) tells of a thread or a process.
type Stat struct {
	State    byte   // R, S, Z, …
	Flags    uint64 // the kernel's PF_ flags
	Start    uint64 // clock ticks since boot
	ExitCode int    // as wait(2) gives it; 0 unless the reader may trace the task
}

// pfExiting is the kernel's PF_EXITING: the task is in exit(2) and has given up its
// table of descriptors.
const pfExiting = 0x4

// Exiting reports whether the task is in exit(2).
func (s Stat) Exiting() bool { return s.Flags&pfExiting != 0 }

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
	st.Start, _ = strconv.ParseUint(f[22-3], 10, 64)
	st.ExitCode, _ = strconv.Atoi(f[52-3])
	return st, true
}
