package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// testRun is one run of a package's tests.
type testRun struct {
	name       string
	pkg        *goPackage
	only, skip string // patterns as go test has them; skip may be empty
	full       bool   // long matrices are wanted as a whole
	nobody     bool   // as an ordinary user, though root runs this
	env        []string

	// quiet returns the channel that says that the binary hangs, if it tells
	// nothing after this event. Nil is a timer of the run's silence.
	quiet func(last event) <-chan time.Time
}

// grace is how long what was killed may take to go. No verdict depends on it.
var grace = time.Minute

func (t testRun) run(ctx context.Context, w *work) result {
	p := newResults()
	err := t.follow(ctx, w, p)
	if err != nil {
		fmt.Fprintln(w, err)
		p.fail(err, t.pkg.names(t.only, t.skip))
	}
	for i := range p.slow {
		p.slow[i].name = t.name + ": " + p.slow[i].name
	}
	return p.result
}

// follow runs the binary, and tells p its events and the log what they print. It
// returns why the binary failed.
func (t testRun) follow(ctx context.Context, w *work, p *results) error {
	program, converter, err := t.commands(w)
	if err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	program.Stdout, program.Stderr = in, in
	raw, err := converter.StdinPipe()
	if err != nil {
		in.Close()
		return err
	}
	told, err := converter.StdoutPipe()
	if err == nil {
		err = converter.Start()
	}
	if err == nil {
		if err = program.Start(); err != nil {
			raw.Close()
			converter.Wait()
		}
	}
	in.Close()
	if err != nil {
		return err
	}

	events := make(chan event, 100)
	go func() {
		defer close(events)
		readEvents(told, events)
	}()
	ended := make(chan error, 1)
	go func() {
		copied := make(chan struct{})
		go func() {
			defer close(copied)
			io.Copy(raw, out)
		}()
		err := program.Wait()
		// A process that was left behind may hold the pipe, and would do so for ever.
		w.sweepProcesses()
		out.SetReadDeadline(time.Now().Add(grace))
		<-copied
		raw.Close()
		ended <- err
	}()
	hang := t.watch(ctx, w, p, events, program)
	err = errors.Join(hang, <-ended, converter.Wait())
	w.spent(program)
	return err
}

// watch takes in all events. When none has come for too long, it has the binary
// print its goroutines and end.
func (t testRun) watch(ctx context.Context, w *work, p *results, events <-chan event, program *exec.Cmd) (hang error) {
	quiet := t.quiet
	if quiet == nil {
		quiet = func(event) <-chan time.Time { return time.After(w.r.o.silence) }
	}
	silent := quiet(event{})
	done := ctx.Done()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return hang
			}
			if e.Action == "output" {
				io.WriteString(w, e.Output)
			}
			p.event(e)
			if hang == nil {
				silent = quiet(e)
			}
		case <-silent:
			silent = nil
			names := strings.Join(p.atWork(), ", ")
			if names == "" {
				names = "no test"
			}
			hang = fmt.Errorf("hangs: nothing was heard of it for %v; running: %s", w.r.o.silence, names)
			go w.quit(program)
		case <-done:
			done = nil
			hang = ctx.Err()
			go w.kill(program.Process.Pid)
		}
	}
}

// commands are the test binary and what turns its output into events.
func (t testRun) commands(w *work) (program, converter *exec.Cmd, err error) {
	binary := w.r.binary[t.pkg.path]
	if _, err := os.Stat(binary); err != nil {
		return nil, nil, errors.New("it was not compiled: see the step " + compileStep)
	}
	if converter, err = w.r.converter(t.name); err != nil {
		return nil, nil, err
	}
	args := []string{"-test.v=test2json", "-test.paniconexit0", "-test.timeout=0",
		"-test.run=" + t.only}
	if t.skip != "" {
		args = append(args, "-test.skip="+t.skip)
	}
	program = exec.Command(binary, args...)
	program.Dir = t.pkg.dir
	program.Env = w.environ(append([]string{
		// The race detector sleeps a second before each end of a process, and tests
		// of mounts start hundreds.
		"GORACE=atexit_sleep_ms=0",
	}, t.env...)...)
	program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if t.full {
		program.Env = append(program.Env, fullEnv+"=1", raceFlags()) // some build the command then with the detector
	}
	if t.nobody {
		// The source may lie where no other user can look.
		program.Dir = w.tmp
		program.Env = append(program.Env, "HOME="+w.tmp)
		program.SysProcAttr.Credential = &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
	}
	return program, converter, nil
}

// converter is go tool test2json for a binary that tells of name.
func (r *run) converter(name string) (*exec.Cmd, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.test2json == "" {
		path, err := exec.Command("go", "tool", "-n", "test2json").Output() // builds it, the first time
		if err != nil {
			return nil, fmt.Errorf("go tool test2json: %w", err)
		}
		// The cache of the build is its owner's to clean at any time.
		program, err := os.ReadFile(strings.TrimSpace(string(path)))
		if err != nil {
			return nil, err
		}
		copied := filepath.Join(r.dir, "test2json")
		if err := os.WriteFile(copied, program, 0o755); err != nil {
			return nil, err
		}
		r.test2json = copied
	}
	cmd := exec.Command(r.test2json, "-t", "-p", name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it outlives an interrupt, as its binary does
	return cmd, nil
}

// quit has all processes of the binary print their goroutines: first those that it
// has started, for it may end them with itself. What is still there after the grace
// is killed.
func (w *work) quit(program *exec.Cmd) {
	own := program.Process.Pid
	var others []int
	for _, pid := range w.processes() {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if pid != own && exe == program.Path {
			others = append(others, pid)
			syscall.Kill(pid, syscall.SIGQUIT)
		}
	}
	awaitEnd(others)
	if alive(own) {
		syscall.Kill(own, syscall.SIGQUIT)
		awaitEnd([]int{own})
	}
	w.kill(own)
}

// kill ends the process group of a process, and all that belongs to the step.
func (w *work) kill(group int) {
	syscall.Kill(-group, syscall.SIGKILL)
	for _, pid := range w.processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
