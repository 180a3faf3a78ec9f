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

// The environment of a daemon names the descriptors that its parent gave it.
const (
	ReadyEnv = "UPLOADFS_READY_FD" // the daemon reports here
	KeyEnv   = "UPLOADFS_KEY_FD"   // the API key is read from here, where the parent had to read it
)

// Mount runs a mount. In the foreground it runs in this process, and Mount returns at
// its end. Else it runs in a process of its own, and Mount returns when it is ready.
//
// The daemon is this program again with the same arguments (a Go process cannot
// fork), in a session of its own. It reports once, and what it reports is what
// Mount returns.
func Mount(c Config) error {
	if parent := inherited(ReadyEnv); parent != nil {
		if key := inherited(KeyEnv); key != nil {
			text, err := io.ReadAll(key)
			if err = errors.Join(err, key.Close()); err != nil {
				return fmt.Errorf("API key: %w", err)
			}
			c.APIKey, c.APIKeyFile = Secret(text), ""
		}
		return runBackground(c, parent)
	}
	if err := c.check(); err != nil {
		return err
	}
	file := c.APIKeyFile
	if err := c.takeKey(); err != nil {
		return err
	}
	if c.Foreground {
		return run(c, func(m readyMount) {
			m.print(false) // the notes are in the log
			notifySystemd("READY=1", "STATUS=mounted on "+Printable(c.MountPoint))
		})
	}
	if c.APIKeyFile == file {
		return startDaemon("")
	}
	return startDaemon(c.APIKey)
}

// inherited opens the descriptor that an environment variable names, and removes
// the variable. nil without the variable.
func inherited(env string) *os.File {
	fd, err := strconv.Atoi(os.Getenv(env))
	if err != nil {
		return nil
	}
	syscall.CloseOnExec(fd) // fusermount3 must not keep the parent waiting
	os.Unsetenv(env)
	return os.NewFile(uintptr(fd), env)
}

// message is what a daemon sends to its parent, once.
type message struct {
	Error string `json:"error"` // "" when the mount is ready
	Code  int    `json:"code"`
	readyMount
}

// readyMount is what is said of a mount when it is ready.
type readyMount struct {
	Notes []string `json:"notes"`          // what users of the mount should know, one sentence each
	Page  string   `json:"page,omitempty"` // URL of the page of --http
}

func (m readyMount) print(notes bool) {
	if notes {
		for _, note := range m.Notes {
			fmt.Fprintln(os.Stderr, "note:", note)
		}
	}
	if m.Page != "" {
		fmt.Println("page:", m.Page)
	}
}

// runBackground is the daemon's side. Standard error is the parent's until there
// is something to report, so that a panic before that is seen.
func runBackground(c Config, parent *os.File) error {
	sent := false
	send := func(m message) {
		if sent {
			return
		}
		sent = true
		leaveTerminal()
		// The mount goes on without its parent.
		if err := json.NewEncoder(parent).Encode(m); err != nil {
			slog.Warn("the command that started this mount has ended", "error", err)
		}
		parent.Close()
	}
	err := run(c, func(m readyMount) { send(message{readyMount: m}) })
	if err != nil {
		send(message{Error: err.Error(), Code: ExitCode(err)})
	}
	return err
}

// startDaemon is the parent's side. The daemon gets the key through a pipe, unless it
// is "": then the daemon finds a key by itself.
func startDaemon(key Secret) error {
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
	cmd.Env = append(os.Environ(), ReadyEnv+"=3")
	cmd.ExtraFiles = []*os.File{report}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if key != "" {
		keyOut, keyIn, err := os.Pipe()
		if err != nil {
			return errors.Join(err, report.Close())
		}
		defer keyOut.Close()
		cmd.Env = append(cmd.Env, KeyEnv+"=4")
		cmd.ExtraFiles = append(cmd.ExtraFiles, keyOut)
		go func() { // ends with the daemon's read, or with its end
			_, _ = io.WriteString(keyIn, string(key)) // an error means that the daemon has ended
			keyIn.Close()
		}()
	}
	// A descriptor that the caller left open, a lock say, would last as long as the mount.
	if err = closeOnExec(); err == nil {
		err = cmd.Start()
	}
	report.Close() // so that the daemon's end is an end of file here
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}

	// Ctrl-C ends the mount that is being made.
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
		m.print(true)
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
