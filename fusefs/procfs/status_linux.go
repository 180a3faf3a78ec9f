package procfs

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signals is a set of signals as the kernel writes it: bit 0 is signal 1.
type Signals uint64

// SignalSet is the set of these signals.
func SignalSet(signals ...syscall.Signal) (set Signals) {
	for _, s := range signals {
		set |= 1 << (s - 1)
	}
	return set
}

// stopSignals are the signals by which people and systems end a program.
var stopSignals = SignalSet(syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTERM)

// Status is what proc_pid_status(5) tells of a thread.
type Status struct {
	PID           int     // of its process (Tgid)
	Pending       Signals // for the thread
	SharedPending Signals // for its process
	Blocked       Signals
	Ignored       Signals
	Capabilities  uint64 // the effective ones, in the thread's user namespace

	// InExec is set inside execve(2), after the old program's memory is gone and
	// before the new one's is there: no program runs without code.
	InExec bool
}

// ReadStatus reads the status file of the thread tid. For 0, a thread in another
// PID namespace, it fails with os.ErrNotExist.
func ReadStatus(tid int) (Status, error) {
	if tid == 0 {
		return Status{}, os.ErrNotExist
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return Status{}, err
	}
	defer f.Close()
	var st Status
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		mask := func(set *Signals) {
			n, _ := strconv.ParseUint(value, 16, 64)
			*set = Signals(n)
		}
		switch key {
		case "Tgid":
			st.PID, _ = strconv.Atoi(value)
		case "SigPnd":
			mask(&st.Pending)
		case "ShdPnd":
			mask(&st.SharedPending)
		case "SigBlk":
			mask(&st.Blocked)
		case "SigIgn":
			mask(&st.Ignored)
		case "CapEff":
			st.Capabilities, _ = strconv.ParseUint(value, 16, 64)
		case "VmExe":
			st.InExec = value == "0 kB"
		}
	}
	if st.PID == 0 {
		return Status{}, os.ErrNotExist
	}
	return st, nil
}

// CapSysPtrace is a capability of capabilities(7).
const CapSysPtrace = unix.CAP_SYS_PTRACE

// Capable reports whether the thread has the capability in its user namespace.
func (s Status) Capable(capability int) bool { return s.Capabilities&(1<<capability) != 0 }

// KillPending reports whether SIGKILL waits for the thread or its process.
func (s Status) KillPending() bool {
	return (s.Pending|s.SharedPending)&SignalSet(syscall.SIGKILL) != 0
}

// OtherPending reports whether a signal other than SIGKILL is pending that the
// program neither blocks nor ignores.
func (s Status) OtherPending() bool {
	return (s.Pending|s.SharedPending)&^s.Blocked&^s.Ignored&^SignalSet(syscall.SIGKILL) != 0
}

// StopPending reports whether SIGKILL is pending, or one of INT, HUP, QUIT and
// TERM that the program neither blocks nor ignores.
func (s Status) StopPending() bool {
	return s.KillPending() || (s.Pending|s.SharedPending)&stopSignals&^s.Blocked&^s.Ignored != 0
}
