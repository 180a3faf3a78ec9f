//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const shown = 4 << 10 // bytes of what a failed case has printed

// scriptLimit ends a script that hangs. It decides no verdict.
const scriptLimit = 3 * time.Minute

// workshop is where scripts are run: a root directory with the tools, and /matrix in it.
type workshop struct {
	programs *programs
	base     string // /matrix, as this run sees it
	url      string // where $IN can be downloaded from
	scratch  int    // the last directory given out as $OUT
}

// script runs one part of a case as bash does with set -e.
type script struct {
	shop         *workshop
	user         string
	dir          string // where it starts, as the tools see it
	out          string // an empty directory, as the tools see it
	outside, log string // the same directory, and a file for what is printed, as this run sees it
}

// newScript prepares for the parts of a case that are run in dir.
func (w *workshop) newScript(user, dir string) (*script, error) {
	w.scratch++
	name := fmt.Sprintf("out/%d", w.scratch)
	s := &script{shop: w, user: user, dir: dir, out: "/matrix/" + name, outside: filepath.Join(w.base, name)}
	s.log = filepath.Join(w.base, "log")
	os.Remove(s.log)
	return s, makeFor(user, s.outside)
}

// close removes what the script has left outside of the directory.
func (s *script) close() { exec.Command("rm", "-rf", s.outside).Run() }

// run runs text, and returns its exit status.
func (s *script) run(ctx context.Context, text string) (status string, err error) {
	if text == "" {
		return "0", nil
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return "", err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(ctx, scriptLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/bash", "-c", "set -e -o pipefail\n"+text)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = asUser(s.user, s.shop.programs.dir)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append([]string{
		"PATH=" + toolPath, "HOME=" + s.out, "LC_ALL=C.UTF-8", "TZ=UTC", "TERM=dumb",
		"IN=/matrix/in", "OUT=" + s.out, "URL=" + s.shop.url, "GOCACHE=/matrix/cache/" + s.user, "CARGO_TARGET_DIR=/matrix/cache/" + s.user + "/cargo",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
	}, stepEnviron()...)
	err = cmd.Run()
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has left in the background
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("it did not end in %v", scriptLimit)
	case err == nil:
		return "0", nil
	case errors.As(err, &exit):
		ended := exit.Sys().(syscall.WaitStatus)
		if ended.Signaled() {
			return fmt.Sprint(128 + int(ended.Signal())), nil // as a shell says it
		}
		return fmt.Sprint(ended.ExitStatus()), nil
	}
	return "", err
}

// printed is the end of what the parts have printed.
func (s *script) printed() string {
	text, _ := os.ReadFile(s.log)
	if len(text) > shown {
		text = text[len(text)-shown:]
	}
	return string(text)
}
