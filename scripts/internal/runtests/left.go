package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What a step leaves behind is found by its directory: processes carry its name in
// their environment, or run or stand below it; mounts have it in their line of
// mountinfo; state directories elsewhere are named after the mount point.

// stepEnv names the step's directory to all processes that it starts.
const stepEnv = "UPLOADFS_TEST_STEP"

// stateDirs is where root's mounts have their state unless told otherwise.
const stateDirs = "/var/lib/uploadfs"

// processes are those of this step that have not ended.
func (w *work) processes() []int {
	var list []int
	mark := []byte(stepEnv + "=" + w.dir + "\x00")
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := "/proc/" + e.Name()
		environ, _ := os.ReadFile(dir + "/environ")
		exe, _ := os.Readlink(dir + "/exe")
		cwd, _ := os.Readlink(dir + "/cwd")
		if bytes.Contains(append([]byte{0}, environ...), append([]byte{0}, mark...)) || below(exe, w.dir) || below(cwd, w.dir) {
			if alive(pid) {
				list = append(list, pid)
			}
		}
	}
	return list
}

func below(name, dir string) bool { return strings.HasPrefix(name, dir+"/") || name == dir }

// alive reports whether a process has not ended. One of which only the exit status is
// left has.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return ok && len(state) > 0 && state[0] != 'Z' && state[0] != 'X'
}

// awaitEnd returns when the processes have ended, or the grace is over.
func awaitEnd(pids []int) {
	deadline := time.Now().Add(grace)
	for slices.ContainsFunc(pids, alive) && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
}

// sweepProcesses notes and kills the processes that are left when a step has ended.
// One that was killed by its test may still be on its way out: it gets the grace.
func (w *work) sweepProcesses() {
	awaitEnd(w.processes())
	for _, pid := range w.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		w.left = append(w.left, fmt.Sprintf("process %d: %s", pid, bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte(" "))))
		syscall.Kill(pid, syscall.SIGKILL)
	}
	awaitEnd(w.processes())
}

// mountsOf are the mount points of the lines of mountinfo that name dir, the innermost
// first.
func mountsOf(mountinfo []byte, dir string) []string {
	var list []string
	for line := range strings.Lines(string(mountinfo)) {
		field := strings.Fields(line)
		if len(field) > 4 && strings.Contains(line, dir+"/") {
			list = append(list, unescape(field[4]))
		}
	}
	slices.Reverse(list)
	return list
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// sweep removes all that is left of the step, and returns what it was.
func (w *work) sweep() []string {
	w.sweepProcesses()
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.left = append(w.left, err.Error())
	}
	for _, point := range mountsOf(mountinfo, w.dir) {
		w.left = append(w.left, "mount "+point)
		if exec.Command("umount", "-l", point).Run() != nil {
			exec.Command("fusermount3", "-u", "-z", point).Run()
		}
	}
	files, err := os.ReadDir(w.tmp)
	if err != nil {
		w.left = append(w.left, err.Error())
	}
	for _, f := range files {
		w.left = append(w.left, "file "+f.Name())
	}
	// systemd's escapes leave the digits and dots of our name as they are.
	states, _ := filepath.Glob(filepath.Join(stateDirs, "*"+filepath.Base(w.r.dir)+"-"+filepath.Base(w.dir)+"-*"))
	for _, dir := range append(states, w.dir) {
		if dir != w.dir {
			w.left = append(w.left, "state directory "+dir)
		}
		// Never into a mount that could not be taken away.
		if out, err := exec.Command("rm", "-rf", "--one-file-system", dir).CombinedOutput(); err != nil {
			w.left = append(w.left, fmt.Sprintf("rm: %v: %s", err, out))
		}
	}
	return w.left
}
