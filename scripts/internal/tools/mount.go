//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"uploadfs/uploader/api/local"
)

// mode is a kind of mount, and the user that runs the tools in it.
type mode struct {
	name, user, owner, writePath string
}

var allModes = []mode{
	{"passthrough", "root", "root", "passthrough"},
	{"writeback", "root", "root", "writeback"},
	{"nobody", "nobody", "nobody", "writeback"},
	{"other", "nobody", "root", "passthrough"}, // another user's mount
}

const apiKey = "sk-tools"

// patience is how long files may take to become Files.
const patience = 2 * time.Minute

// testMount is a mount with an API server of its own.
type testMount struct {
	mode
	dir     string // where this run sees it
	inside  string // where the tools see it
	state   string
	server  *local.Server
	env     []string
	binary  string
	refuses atomic.Bool // everything
}

// newMount starts a server and mounts. The tools see base at /matrix.
func newMount(ctx context.Context, m mode, base, binary string) (*testMount, error) {
	t := &testMount{
		mode: m, dir: filepath.Join(base, m.name, "up"), inside: filepath.Join("/matrix", m.name, "up"),
		state: filepath.Join(base, m.name, "state"), binary: binary,
	}
	for _, dir := range []string{filepath.Dir(t.dir), t.dir} {
		if err := makeFor(m.owner, dir); err != nil {
			return nil, err
		}
	}
	var err error
	t.server, err = local.Open(local.Options{Dir: filepath.Join(base, m.name+"-api"), Key: apiKey, Intercept: t.intercept})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go t.server.Serve(listener)
	t.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(t.dir),
		"OPENAI_BASE_URL=http://" + listener.Addr().String() + "/v1", "OPENAI_API_KEY=" + apiKey,
	}
	t.env = append(t.env, stepEnviron()...)
	// A file that is still held when its tool has ended is told to go: nothing here
	// depends on how fast a tool is.
	args := []string{"mount", "--state-dir", t.state, "--part-size", "8MiB", "--hold-for", "1h", "--write-path", m.writePath}
	if m.owner == "root" {
		args = append(args, "-o", "allow_other") // some tools change their user
	}
	_, err = t.command(ctx, append(args, t.dir)...)
	return t, err
}

// stepEnviron marks what a run of scripts/test has started, for its sweep.
func stepEnviron() []string {
	const name = "UPLOADFS_TEST_STEP"
	if value, ok := os.LookupEnv(name); ok {
		return []string{name + "=" + value}
	}
	return nil
}

// makeFor makes a directory of this user's.
func makeFor(user, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if user == "nobody" {
		return os.Chown(dir, nobodyID, nobodyID)
	}
	return nil
}

func (t *testMount) intercept(p local.Point) *local.Fault {
	if !t.refuses.Load() || p.Stage != local.StageHead {
		return nil
	}
	return &local.Fault{Status: 403, Message: "You have insufficient permissions for this operation."}
}

// command runs a subcommand as the mount's owner, and returns what it printed.
func (t *testMount) command(ctx context.Context, args ...string) ([]byte, error) {
	return t.program(ctx, t.binary, args...)
}

func (t *testMount) program(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = t.env
	cmd.Dir = "/"
	cmd.SysProcAttr = asUser(t.owner, "")
	cmd.SysProcAttr.Pdeathsig = 0 // a daemon goes on
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// end unmounts. Files that were refused are no error of the matrix.
func (t *testMount) end() {
	ctx := context.Background()
	if _, err := t.command(ctx, "unmount", t.dir); err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
	}
	t.server.Close()
}

// waiting is a file that is neither completed nor empty.
type waiting struct {
	Path, State, Error string
}

// settled waits until no file below dir is on its way. It sends what is still held,
// and returns the paths of these files.
func (t *testMount) settled(ctx context.Context, dir string) (held []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		out, err := t.command(ctx, "status", "--json", t.dir)
		if err != nil {
			return held, err
		}
		var report struct{ Files []waiting }
		if err := json.Unmarshal(out, &report); err != nil {
			return held, err
		}
		left, retry := "", []string{"retry"}
		for _, f := range report.Files {
			if !strings.HasPrefix(f.Path, dir+"/") {
				continue
			}
			switch f.State {
			case "excluded", "failed", "interrupted":
				continue
			case "held":
				retry = append(retry, filepath.Join(t.dir, f.Path))
				held = append(held, strings.TrimPrefix(f.Path, dir+"/"))
			}
			left += fmt.Sprintf("%s is %s (%s) ", f.Path, f.State, f.Error)
		}
		if left == "" {
			return held, nil
		}
		if len(retry) > 1 {
			if _, err := t.command(ctx, retry...); err != nil {
				return held, err
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return held, fmt.Errorf("not uploaded in %v: %s", patience, left)
		}
	}
}

// mkdir, remove and tree do as the mount's owner what the kernel grants no other user.
func (t *testMount) mkdir(ctx context.Context, dir string) error {
	if t.owner == "root" {
		return makeFor(t.user, filepath.Join(t.dir, dir))
	}
	_, err := t.program(ctx, "/bin/mkdir", filepath.Join(t.dir, dir))
	return err
}

func (t *testMount) remove(ctx context.Context, dir string) {
	if t.owner == "root" {
		os.RemoveAll(filepath.Join(t.dir, dir))
	} else {
		t.program(ctx, "/bin/rm", "-rf", filepath.Join(t.dir, dir))
	}
}

func (t *testMount) tree(ctx context.Context, self, dir string) (list []entry, err error) {
	if t.owner == "root" {
		return tree(filepath.Join(t.dir, dir))
	}
	out, err := t.program(ctx, self, "-inspect", filepath.Join(t.dir, dir))
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	return list, err
}
