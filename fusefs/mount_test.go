//go:build linux

package fusefs_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/fusefs"
	"uploadfs/uploader"
	"uploadfs/uploader/backing"
)

// testMount is a mount over a backing tree of its own. Its server is another process,
// so tests can use its files as any program does: a process that waits for its own
// mount would wait for itself.
type testMount struct {
	dir   string // where it is mounted
	tree  string // the backing tree
	state string

	in  io.WriteCloser // commands, one word a line, see serveHelper
	out *bufio.Reader  // their answers
}

// newMount mounts with these options of mount(8)'s -o: as root for all users, or
// through fusermount3. Nothing is uploaded, because all names are excluded: these tests
// are about files.
func newMount(t *testing.T, options ...string) *testMount {
	t.Helper()
	return newNamingMount(t, uploader.NamePolicy{Exclude: []string{"*"}}, options...)
}

// newNamingMount is newMount with a policy by which no name is uploaded.
func newNamingMount(t *testing.T, names uploader.NamePolicy, options ...string) *testMount {
	t.Helper()
	policy, err := json.Marshal(names)
	require.NoError(t, err)
	base := tempDir(t)
	m := &testMount{dir: join(base, "mnt"), state: join(base, "state")}
	m.tree = join(m.state, "tree")
	require.NoError(t, os.Mkdir(m.dir, 0o755))
	require.NoError(t, os.MkdirAll(m.tree, 0o755))
	if isRoot() {
		options = append(options, "allow_other")
	}
	cmd := exec.Command("/proc/self/exe", append([]string{m.state, m.dir, string(policy)}, options...)...)
	// The race detector sleeps for a second at the end of every process.
	cmd.Env = append(os.Environ(), "FUSEFS_TEST_HELPER=serve", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	m.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	m.out = bufio.NewReader(out)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, m.in.Close()) // ends it
		require.NoError(t, cmd.Wait())
	})
	require.Equal(t, "mounted", m.answer(t))
	return m
}

func (m *testMount) answer(t *testing.T) string {
	t.Helper()
	line, err := m.out.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

// do sends the server a command and returns its answer.
func (m *testMount) do(t *testing.T, what string) string {
	t.Helper()
	_, err := fmt.Fprintln(m.in, what)
	require.NoError(t, err)
	return m.answer(t)
}

// serveHelper serves a mount until its input ends.
func serveHelper(args []string) error {
	state, dir, options := args[0], args[1], args[3:]
	var names uploader.NamePolicy
	if err := json.Unmarshal([]byte(args[2]), &names); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	tree, err := backing.Open(join(state, "tree"))
	if err != nil {
		return err
	}
	up, err := uploader.Open(uploader.Options{Tree: tree, StateDir: state, Logger: logger, Names: names})
	if err != nil {
		return err
	}
	server, err := fusefs.Mount(dir, fusefs.Options{Tree: tree, Uploader: up, Logger: logger, WritePath: writePath()},
		fusefs.MountOptions{Source: state, Options: options})
	if err != nil {
		return err
	}
	fmt.Println("mounted")
	for words := bufio.NewScanner(os.Stdin); words.Scan(); {
		switch words.Text() {
		case "path":
			fmt.Println(server.WritePath())
		case "wait":
			server.Wait()
			fmt.Println("gone")
		case "unmount":
			fmt.Println(server.Unmount() == nil)
		}
	}
	err = server.Unmount()
	if err == nil {
		server.Wait()
	}
	return errors.Join(err, up.Close(), tree.Close(), ownLeaks())
}

// mountinfo returns the mount's line of /proc/self/mountinfo.
func (m *testMount) mountinfo(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
		if strings.Contains(line, " "+m.dir+" ") {
			return line
		}
	}
	t.Fatalf("%s is not mounted", m.dir)
	return ""
}

func TestMountShowsItsStateDirectory(t *testing.T) {
	m := newMount(t)
	line := m.mountinfo(t)
	require.Contains(t, line, " - fuse.uploadfs "+m.state+" ")
	require.Contains(t, line, "default_permissions")
	require.Contains(t, line, "nosuid")
	require.Contains(t, line, "nodev")
	want := writePath()
	if want == "" || want == fusefs.Auto {
		if want = fusefs.Writeback; isRoot() {
			want = fusefs.Passthrough
		}
	}
	require.Equal(t, string(want), m.do(t, "path"))
}

func TestMountOptions(t *testing.T) {
	m := newMount(t, "noexec", "ro")
	require.Contains(t, m.mountinfo(t), "noexec")
	require.ErrorIs(t, os.WriteFile(join(m.dir, "f"), nil, 0o644), syscall.EROFS)
	if isRoot() {
		line := newMount(t, "suid", "dev").mountinfo(t)
		require.NotContains(t, line, "nosuid")
		require.NotContains(t, line, "nodev")
	}
}

func TestMountRefusesUnknownWritePath(t *testing.T) {
	_, err := fusefs.Mount(tempDir(t), fusefs.Options{WritePath: "fastest"}, fusefs.MountOptions{})
	require.ErrorContains(t, err, `"fastest"`)
}

func TestMountBusy(t *testing.T) {
	m := newMount(t)
	f, err := os.Create(join(m.dir, "f"))
	require.NoError(t, err)
	require.Equal(t, "false", m.do(t, "unmount"))
	_, err = f.WriteString("still served")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, "still served", read(t, join(m.tree, "f")))
	require.Equal(t, "true", m.do(t, "unmount"))
	require.Equal(t, "true", m.do(t, "unmount"), "it is gone")
}

func TestMountEndedByOthers(t *testing.T) {
	m := newMount(t)
	(*user)(nil).must(t, "fusermount3 -u "+m.dir)
	require.Equal(t, "gone", m.do(t, "wait"))
}
