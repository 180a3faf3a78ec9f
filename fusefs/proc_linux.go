package fusefs

import (
	"bufio"
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// What /proc tells of the process behind a request. The process waits for the
// answer, so what is read of it does not change under the reader; every error
// means that nothing can be told.

// pfExiting is PF_EXITING of the kernel's task flags: the task is in exit(2) and
// has given up its table of descriptors.
const pfExiting = 0x4

// process names one life of a process: numbers are used again, start times not.
type process struct {
	tgid  int
	start uint64 // clock ticks since boot
}

// taskStat is what /proc/…/stat tells of a thread or a process.
type taskStat struct {
	state    byte
	flags    uint64
	start    uint64
	exitCode int // as wait(2) gives it; readable by the same user and by root
}

// readStat parses a stat file (proc(5)). The second field is the command's name
// in parentheses, which may hold anything, so the fields are counted from its end.
func readStat(name string) (taskStat, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return taskStat{}, err
	}
	end := strings.LastIndexByte(string(b), ')')
	f := strings.Fields(string(b[end+1:]))
	if end < 0 || len(f) < 50 {
		return taskStat{}, fmt.Errorf("%s: not a stat file", name)
	}
	var st taskStat
	st.state = f[0][0]
	st.flags, _ = strconv.ParseUint(f[9-3], 10, 64)
	st.start, _ = strconv.ParseUint(f[22-3], 10, 64)
	st.exitCode, _ = strconv.Atoi(f[52-3])
	return st, nil
}

// groupOf finds the process of the thread that a request came from: the kernel
// gives the thread's number. 0 means that it has none here (another PID
// namespace, or the kernel itself).
func groupOf(pid uint32) (process, error) {
	status, err := readStatus(int(pid))
	if err != nil {
		return process{}, err
	}
	p := process{tgid: status.tgid}
	st, err := readStat(fmt.Sprintf("/proc/%d/stat", p.tgid))
	p.start = st.start
	return p, err
}

// lives reports whether the process is still there and not on its way out.
func (p process) lives() bool {
	st, err := readStat(fmt.Sprintf("/proc/%d/stat", p.tgid))
	return err == nil && st.start == p.start && st.flags&pfExiting == 0 && st.state != 'Z' && st.state != 'X'
}

// taskStatus is what /proc/PID/status tells of a thread.
type taskStatus struct {
	tgid                              int
	pending, shared, blocked, ignored uint64 // signal masks; bit 0 is signal 1

	// starting is set inside execve(2), after the old program's memory is gone
	// and before the new one's is there: no program runs without code.
	starting bool
}

func readStatus(pid int) (taskStatus, error) {
	if pid == 0 {
		return taskStatus{}, os.ErrNotExist
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return taskStatus{}, err
	}
	defer f.Close()
	var st taskStatus
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		mask := func(m *uint64) { *m, _ = strconv.ParseUint(value, 16, 64) }
		switch key {
		case "Tgid":
			st.tgid, _ = strconv.Atoi(value)
		case "SigPnd":
			mask(&st.pending)
		case "ShdPnd":
			mask(&st.shared)
		case "SigBlk":
			mask(&st.blocked)
		case "SigIgn":
			mask(&st.ignored)
		case "VmExe":
			st.starting = value == "0 kB"
		}
	}
	if st.tgid == 0 {
		return taskStatus{}, os.ErrNotExist
	}
	return st, nil
}

func mask(signals ...syscall.Signal) (m uint64) {
	for _, s := range signals {
		m |= 1 << (s - 1)
	}
	return m
}

// killed reports whether SIGKILL waits for the thread or its process.
func (st taskStatus) killed() bool {
	return (st.pending|st.shared)&mask(syscall.SIGKILL) != 0
}

// stops reports whether a signal is pending by which people and systems end a
// program, and which the program neither blocks nor ignores.
func (st taskStatus) stops() bool {
	ends := mask(syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTERM)
	return st.killed() || bits.OnesCount64((st.pending|st.shared)&ends&^st.blocked&^st.ignored) > 0
}

// descriptor is one open file of a process as /proc/PID/fdinfo tells, which does
// not touch the file itself.
type descriptor struct {
	fd    int
	pos   int64
	flags int
	mount int
	ino   uint64
}

func (d descriptor) writable() bool { return d.flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// descriptors lists what the process has open. An exiting process has nothing.
func descriptors(tgid int) ([]descriptor, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/fdinfo", tgid))
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return nil, err
	}
	var all []descriptor
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		d, err := descriptorOf(tgid, fd)
		if err != nil {
			continue // closed meanwhile by another thread
		}
		all = append(all, d)
	}
	return all, nil
}

// descriptorOf looks at one descriptor.
func descriptorOf(tgid, fd int) (descriptor, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", tgid, fd))
	if err != nil {
		return descriptor{}, err
	}
	d := descriptor{fd: fd}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "pos":
			d.pos, _ = strconv.ParseInt(value, 10, 64)
		case "flags":
			n, _ := strconv.ParseInt(value, 8, 64)
			d.flags = int(n)
		case "mnt_id":
			d.mount, _ = strconv.Atoi(value)
		case "ino":
			d.ino, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return d, nil
}

// mountDevices maps the mounts that a process sees to their devices
// ("major:minor", proc(5), mountinfo).
func mountDevices(pid string) (map[int]string, error) {
	devices := map[int]string{}
	err := eachMount(pid, func(id int, device, _ string) { devices[id] = device })
	return devices, err
}

// eachMount calls fn for every mount that a process ("self", or a number) sees.
func eachMount(pid string, fn func(id int, device, point string)) error {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 5 {
			continue
		}
		id, err := strconv.Atoi(field[0])
		if err != nil {
			continue
		}
		fn(id, field[2], unescape(field[4]))
	}
	return lines.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
