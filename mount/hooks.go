package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"uploadfs/mount/metrics"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// HookCommand is the hidden subcommand that calls [ExecHook] with its arguments.
const HookCommand = "run-hook"

// Bounds of hooks.
const (
	hooksAtOnce  = 4
	hooksWaiting = 1000        // beyond these they are dropped
	hookTimeout  = time.Minute // of one, and of all that are left at the end of the mount
	hookOutput   = 4 << 10     // bytes that the log gets of one that failed
)

// hooks run the programs of --on-complete and --on-failure.
type hooks struct {
	complete, failure string // absolute paths, "" for none
	mountPoint        func() string
	umask             int // of the programs; the daemon's own is 0
	metrics           *metrics.Metrics
	log               *slog.Logger

	events chan *uploader.Status
	ctx    context.Context // ends when what is left is given up
	stop   context.CancelCauseFunc
	work   sync.WaitGroup

	mu    sync.Mutex
	ended bool // nothing is taken any more
}

var errHooksEnd = errors.New("the mount has ended")

// startHooks begins to run hooks. The caller must call close. nil stands for none.
func startHooks(c *Config, umask int, mountPoint func() string, m *metrics.Metrics, log *slog.Logger) *hooks {
	if c.OnComplete == "" && c.OnFailure == "" {
		return nil
	}
	h := &hooks{
		complete: c.OnComplete, failure: c.OnFailure, mountPoint: mountPoint, umask: umask, metrics: m, log: log,
		events: make(chan *uploader.Status, hooksWaiting),
	}
	h.ctx, h.stop = context.WithCancelCause(context.Background())
	for range hooksAtOnce {
		h.work.Go(func() {
			for st := range h.events {
				h.run(st)
			}
		})
	}
	return h
}

// add has the hook run for a file that has ended so. It never waits.
func (h *hooks) add(st *uploader.Status) {
	if h == nil {
		return
	}
	event, program := h.hookOf(st)
	if program == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return
	}
	select {
	case h.events <- st:
	default:
		h.failed(event, st, fmt.Errorf("not run: %d hooks wait already", hooksWaiting), nil)
	}
}

// hookOf is the event that the state of a file stands for, and its program.
func (h *hooks) hookOf(st *uploader.Status) (event, program string) {
	if st.State == state.Completed {
		return metrics.HookComplete, h.complete
	}
	return metrics.HookFailure, h.failure
}

func (h *hooks) run(st *uploader.Status) {
	event, program := h.hookOf(st)
	ctx, cancel := context.WithTimeoutCause(h.ctx, hookTimeout, fmt.Errorf("killed after %s", hookTimeout))
	defer cancel()
	if ctx.Err() != nil {
		h.failed(event, st, context.Cause(ctx), nil)
		return
	}
	// Through this program, since only the new process can set its umask.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", HookCommand, strconv.Itoa(h.umask), program)
	cmd.Env = h.environment(event, st)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a program that it has left behind may keep the output open
	var out head
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		h.failed(event, st, errors.Join(context.Cause(ctx), err), out.kept)
		return
	}
	h.metrics.Hook(event, nil)
}

// failed logs and counts a hook that did not succeed.
func (h *hooks) failed(event string, st *uploader.Status, err error, output []byte) {
	h.metrics.Hook(event, err)
	h.log.Warn("hook failed", "event", event, "path", st.Path, "error", err, "output", string(bytes.TrimSpace(output)))
}

// environment is the daemon's without the API's variables, and with the file's facts.
func (h *hooks) environment(event string, st *uploader.Status) (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "OPENAI_") && !strings.HasPrefix(v, "UPLOADFS_") && !strings.HasPrefix(v, "NOTIFY_SOCKET=") {
			env = append(env, v)
		}
	}
	point := h.mountPoint()
	for _, fact := range [][2]string{
		{"EVENT", event}, {"STATE", string(st.State)}, {"MOUNT", point}, {"PATH", filepath.Join(point, st.Path)},
		{"SIZE", strconv.FormatInt(st.Size, 10)}, {"FILE_ID", st.FileID}, {"ID", st.UploadID}, {"MD5", st.MD5},
		{"FILENAME", st.Filename}, {"PURPOSE", st.Purpose}, {"MIME_TYPE", st.MimeType}, {"ERROR", st.Error},
	} {
		env = append(env, "UPLOAD_"+fact[0]+"="+fact[1])
	}
	return env
}

// close waits for the hooks that are left, for a bounded time.
func (h *hooks) close() {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.ended = true
	close(h.events)
	h.mu.Unlock()
	t := time.AfterFunc(hookTimeout, func() { h.stop(errHooksEnd) })
	defer t.Stop()
	h.work.Wait()
	h.stop(errHooksEnd)
}

// head keeps the first bytes of what is written to it. One goroutine writes.
type head struct{ kept []byte }

func (w *head) Write(p []byte) (int, error) {
	w.kept = append(w.kept, p[:min(len(p), hookOutput-len(w.kept))]...)
	return len(p), nil
}

// ExecHook becomes the program of a hook, with this umask.
func ExecHook(umask, program string) error {
	mask, err := strconv.Atoi(umask)
	if err != nil {
		return err
	}
	syscall.Umask(mask)
	return fmt.Errorf("%s: %w", program, syscall.Exec(program, []string{program}, os.Environ()))
}

// findHook makes a hook's program an absolute path.
func findHook(flag, program string) (string, error) {
	if program == "" {
		return "", nil
	}
	path, err := exec.LookPath(program)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: name a program that can be run, without arguments", flag, Printable(program), err)
	}
	return path, nil
}
