//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is the mount, through all its daemons' lives.
type daemon struct {
	binary, dir, path string
	state             string // the state directory
	env               []string
	flags             []string // of mount, further ones
}

const apiKey = "sk-soak"

func newDaemon(o options, url string, flags ...string) *daemon {
	env := append(os.Environ(), "OPENAI_BASE_URL="+url, "OPENAI_API_KEY="+apiKey)
	return &daemon{o.binary, o.dir, o.path, filepath.Join(o.dir, "state"), env, flags}
}

func (d *daemon) point() string { return filepath.Join(d.dir, "up") }
func (d *daemon) tree() string  { return filepath.Join(d.state, "tree") }

// command runs a subcommand, and returns what it printed.
func (d *daemon) command(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.binary, args...)
	cmd.Env = d.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("uploadfs %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

func (d *daemon) mount(ctx context.Context) error {
	args := append([]string{"mount", "--state-dir", d.state, "--part-size", "8MiB", "--write-path", d.path}, d.flags...)
	_, err := d.command(ctx, append(args, d.point())...)
	return err
}

func (d *daemon) unmount(ctx context.Context) error {
	_, err := d.command(ctx, "unmount", d.point())
	return err
}

// file is what status says of one file.
type file struct {
	Path, State, Error string
}

// report is what status says of the mount.
type report struct {
	WritePath string `json:"write_path"`
	Files     []file // those that are neither completed nor empty
}

func (d *daemon) report(ctx context.Context) (r report, err error) {
	out, err := d.command(ctx, "status", "--json", d.point())
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	return r, err
}

// status names all files that are neither completed nor empty.
func (d *daemon) status(ctx context.Context) ([]file, error) {
	r, err := d.report(ctx)
	return r.Files, err
}

// settled waits until status names no file but those in the states given, and returns
// these by path. A failed file is an error unless that state is given.
func (d *daemon) settled(ctx context.Context, but ...string) (map[string]file, error) {
	for {
		files, err := d.status(ctx)
		if err != nil {
			return nil, err
		}
		settled := map[string]file{}
		var left []string
		for _, f := range files {
			switch {
			case slices.Contains(but, f.State):
				settled[f.Path] = f
			case f.State == "failed":
				return nil, fmt.Errorf("%s has failed: %s", f.Path, f.Error)
			default:
				left = append(left, f.Path+" is "+f.State+": "+f.Error)
			}
		}
		if len(left) == 0 {
			return settled, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("not uploaded in time: %v", left)
		}
	}
}

// kill ends the daemon as nothing can prevent, and returns when it is gone.
func (d *daemon) kill() error { return d.signal(syscall.SIGKILL) }

// signal sends the daemon a signal that ends it, and returns when it is gone.
func (d *daemon) signal(signal syscall.Signal) error {
	pid, err := d.pid()
	if err != nil {
		return err
	}
	return end(pid, signal)
}

// pid is that of the daemon, which holds the lock.
func (d *daemon) pid() (int, error) {
	text, err := os.ReadFile(filepath.Join(d.state, "lock"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// end sends a process a signal that ends it, and returns when it is gone.
func end(pid int, signal syscall.Signal) error {
	for {
		err := syscall.Kill(pid, signal)
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && bytes.Contains(stat, []byte(") Z ")) {
			return nil // what started us does not collect it
		}
		time.Sleep(time.Millisecond)
		signal = 0 // once is enough; from now on this looks
	}
}

// end takes away what is still mounted, whatever has gone wrong.
func (d *daemon) end() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || !bytes.Contains(mounts, []byte(" "+d.point()+" ")) {
		return err
	}
	err = d.kill()
	if unmount := exec.Command("fusermount3", "-u", "-z", d.point()); os.Geteuid() != 0 {
		return errors.Join(err, unmount.Run())
	}
	return errors.Join(err, unix.Unmount(d.point(), 0))
}

// attr reads one of the mount's attributes of a file; "" if it has no value.
func (d *daemon) attr(path, name string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Getxattr(filepath.Join(d.point(), path), "user.uploadfs."+name, buf)
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w", name, path, err)
	}
	return string(buf[:n]), nil
}
