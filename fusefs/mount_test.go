//go:build linux

package fusefs_test

import (
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/fusefs"
	"uploadfs/uploader"
	"uploadfs/uploader/backing"
)

// testMount is a mount over a backing tree of its own.
type testMount struct {
	dir    string // where it is mounted
	tree   string // the backing tree
	server *fusefs.Server
}

// newMount mounts with these options of mount(8)'s -o; as root, and then for
// all users, or through fusermount3.
func newMount(t *testing.T, options ...string) *testMount {
	t.Helper()
	base := tempDir(t)
	m := &testMount{dir: join(base, "mnt"), tree: join(base, "state", "tree")}
	require.NoError(t, os.Mkdir(m.dir, 0o755))
	require.NoError(t, os.MkdirAll(m.tree, 0o755))
	logger := slog.New(slog.NewTextHandler(testLog{t}, nil))

	tree, err := backing.Open(m.tree)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tree.Close()) })
	up := newUploader(t, tree, join(base, "state"), logger)
	t.Cleanup(func() { require.NoError(t, up.Close()) })

	if isRoot() {
		options = append(options, "allow_other")
	}
	m.server, err = fusefs.Mount(m.dir, fusefs.Options{Tree: tree, Uploader: up, Logger: logger},
		fusefs.MountOptions{Source: join(base, "state"), Options: options})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, m.server.Unmount())
		m.server.Wait()
	})
	return m
}

// newUploader is one to which no name is worth sending: these tests are about files.
func newUploader(t *testing.T, tree *backing.Tree, state string, logger *slog.Logger) *uploader.Uploader {
	t.Helper()
	up, err := uploader.Open(uploader.Options{
		Tree: tree, StateDir: state, Logger: logger,
		PartSize: uploader.MaxPart, Parallel: 1, Purpose: "user_data",
		Names: uploader.NamePolicy{Exclude: []string{"*"}},
	})
	require.NoError(t, err)
	return up
}

// mountinfo is the line of /proc/self/mountinfo for the mount.
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
	require.Contains(t, line, " - fuse.uploadfs "+strings.TrimSuffix(m.tree, "/tree")+" ")
	require.Contains(t, line, "default_permissions")
	require.Contains(t, line, "nosuid")
	require.Contains(t, line, "nodev")
	require.Equal(t, fusefs.Writeback, m.server.WritePath())
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

func TestUnmountWhileBusy(t *testing.T) {
	m := newMount(t)
	f, err := os.Create(join(m.dir, "f"))
	require.NoError(t, err)
	require.Error(t, m.server.Unmount())
	_, err = f.WriteString("still served")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, "still served", read(t, join(m.tree, "f")))
}

func TestWaitHearsOfOthersUnmounting(t *testing.T) {
	m := newMount(t)
	(*user)(nil).must(t, "fusermount3 -u "+m.dir)
	m.server.Wait()
}
