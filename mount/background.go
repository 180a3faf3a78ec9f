package mount

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
)

// readyEnv tells a daemon on which descriptor its parent listens.
const readyEnv = "UPLOADFS_READY_FD"

// Mount runs a mount as the configuration wants it: in this process until its
// end, or in a process of its own, and then it returns when the mount is ready.
//
// The daemon is this program again with the same arguments (a Go process cannot
// fork), in a session of its own. It reports once, and what it reports is what
// Mount returns.
func Mount(c Config) error {
	if fd, err := strconv.Atoi(os.Getenv(readyEnv)); err == nil {
		syscall.CloseOnExec(fd) // fusermount3 must not keep the parent waiting
		os.Unsetenv(readyEnv)
		return runBackground(c, os.NewFile(uintptr(fd), "ready"))
	}
	if c.Foreground {
		return run(c, func([]string) { notifySystemd("READY=1\nSTATUS=mounted on " + Printable(c.MountPoint)) })
	}
	if err := c.check(); err != nil {
		return err
	}
	return startDaemon()
}

// message is what a daemon tells its parent, once.
type message struct {
	Error string   `json:"error"` // "" when the mount is ready
	Code  int      `json:"code"`
	Notes []string `json:"notes"` // what users of the mount should know, one sentence each
}

// runBackground is the daemon's side. Standard error is the parent's until there
// is something to report, so that a panic before that is seen.
func runBackground(c Config, parent *os.File) error {
	told := false
	tell := func(m message) {
		if told {
			return
		}
		told = true
		leaveTerminal()
		// A parent that is gone is no reason to end: the mount is what was wanted.
		if err := json.NewEncoder(parent).Encode(m); err != nil {
			slog.Warn("nobody waits for the mount any more", "error", err)
		}
		parent.Close()
	}
	err := run(c, func(notes []string) { tell(message{Notes: notes}) })
	if err != nil {
		tell(message{Error: err.Error(), Code: ExitCode(err)})
	}
	return err
}

// startDaemon is the parent's side.
func startDaemon() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	listen, report, err := os.Pipe()
	if err != nil {
		return err
	}
	defer listen.Close()
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), readyEnv+"=3")
	cmd.ExtraFiles = []*os.File{report}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	report.Close() // so that the daemon's end is an end of file here
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}

	// Ctrl-C now means the mount that is being made.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	heard := make(chan struct{})
	defer func() { signal.Stop(signals); close(heard) }()
	go func() {
		for {
			select {
			case <-signals:
				cmd.Process.Signal(syscall.SIGTERM)
			case <-heard:
				return
			}
		}
	}()

	var m message
	err = json.NewDecoder(listen).Decode(&m)
	switch {
	case err == nil && m.Error == "":
		for _, note := range m.Notes {
			fmt.Fprintln(os.Stderr, "note:", note)
		}
		return cmd.Process.Release()
	case err == nil:
		err = &reported{m.Error, m.Code}
	case errors.Is(err, io.EOF):
		err = errors.New("the daemon ended before the mount was ready: try again with --foreground to see why")
	}
	if wait := cmd.Wait(); wait != nil && !errors.As(wait, new(*exec.ExitError)) {
		err = errors.Join(err, wait)
	}
	return err
}

// openLog opens the log: standard error in the foreground, else a file in the
// state directory, which then also receives the trace of a crash.
func (c *Config) openLog(dir *stateDir) (*slog.Logger, func() error, error) {
	if c.Foreground {
		return newLogger(os.Stderr, c), func() error { return nil }, nil
	}
	f, err := openRotating(dir.file(logFile), logSize, logKeep, func(f *os.File) {
		// The worst of an error here is that a crash leaves no trace.
		_ = debug.SetCrashOutput(f, debug.CrashOptions{})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("log: %w", err)
	}
	return newLogger(f, c), f.Close, nil
}
