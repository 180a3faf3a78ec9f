//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What goes wrong in the first minutes: one line that says what to do next, the
// right exit code, and no mount.
func TestFirstMinutes(t *testing.T) {
	eachUser(t, func(b *box) {
		file := filepath.Join(b.dir, "file")
		require.NoError(b, os.WriteFile(file, nil, 0o644))
		full := filepath.Join(b.dir, "full")
		require.NoError(b, os.MkdirAll(filepath.Join(full, "x"), 0o755))
		require.NoError(b, os.Symlink("file", filepath.Join(b.dir, "link")))

		for _, c := range []struct {
			name string
			code int
			text string
			args []string
		}{
			{"no key", 1, "use --embedded", b.mountArgs()},
			{"no key file", 1, "no such file", b.mountArgs("--api-key-file", "absent")},
			{"missing", 1, "create it with mkdir", []string{"mount", "--embedded", filepath.Join(b.dir, "absent")}},
			{"parent missing", 1, "create it with mkdir -p", []string{"mount", "--embedded", filepath.Join(b.dir, "absent", "up")}},
			{"a file", 1, "not a directory", []string{"mount", "--embedded", file}},
			{"a link to a file", 1, "not a directory", []string{"mount", "--embedded", filepath.Join(b.dir, "link")}},
			{"not empty", 1, "choose an empty directory", []string{"mount", "--embedded", full}},
			{"another mount", 1, "already carries a mount", []string{"mount", "--embedded", "/proc"}},
			{"state below", 1, "below its own mount point", []string{"mount", "--embedded", "--state-dir", filepath.Join(b.point, "s"), b.point}},
			{"state the same", 1, "below its own mount point", []string{"mount", "--embedded", "--state-dir", b.point, b.point}},
			{"state around", 1, "lies in its own state directory", []string{"mount", "--embedded", "--state-dir", b.dir, b.point}},
			{"state of others", 1, "give another one with --state-dir", b.mountArgs("--embedded", "--state-dir", full)},
			{"size", 2, "8MiB to 64MiB, or auto", b.mountArgs("--embedded", "--part-size", "1GiB")},
			{"purpose", 2, "assistants, batch, fine-tune, vision, user_data, evals", b.mountArgs("--embedded", "--purpose", "fun")},
			{"close", 2, "use wait or background", b.mountArgs("--embedded", "--close", "never")},
			{"checksum", 2, "use md5 or none", b.mountArgs("--embedded", "--checksum", "crc")},
			{"write path", 2, "use auto or passthrough or writeback", b.mountArgs("--embedded", "--write-path", "fast")},
			{"option", 2, "unknown mount option", b.mountArgs("--embedded", "-o", "subtype=x")},
			{"flag", 2, "unknown flag", b.mountArgs("--api-key", "x")},
			{"two sources of a key", 2, "--embedded makes its own key", b.mountArgs("--embedded", "--api-key-file", file)},
			{"no mount point", 2, "name the one directory to mount on", []string{"mount", "--embedded"}},
			{"no command", 2, "unknown command", []string{"remount"}},
			{"not mounted", 1, "is no uploadfs mount", []string{"unmount", b.point}},
			{"status of nothing", 1, "is no uploadfs mount", []string{"status", b.point}},
			{"info elsewhere", 1, "is not on an uploadfs mount", []string{"info", file}},
			{"wait elsewhere", 1, "is not on an uploadfs mount", []string{"wait", file}},
			{"retry elsewhere", 1, "is not on an uploadfs mount", []string{"retry", file}},
		} {
			b.Run(c.name, func(t *testing.T) {
				sub := *b
				sub.T = t
				sub.refused(c.code, c.text, c.args...)
			})
		}
		require.False(b, b.mounted())
	})
}

func TestEndpointsThatCannotBe(t *testing.T) {
	b := newBox(t, users()[0])
	b.env = append(b.env, "OPENAI_API_KEY="+testKey)
	clean := b.env
	for url, text := range map[string]string{
		"http://192.0.2.1/v1":        "--insecure-http",
		"ftp://127.0.0.1/v1":         "must begin with https:// or http://",
		"https://me:secret@host/v1/": "must not carry a user name or password",
	} {
		b.env = append(clean, "OPENAI_BASE_URL="+url)
		b.refused(1, text, b.mountArgs()...)
		require.NoFileExists(t, filepath.Join(b.state, "endpoint"), "a mistake binds nothing")
	}
}

func TestStateDirectoryIsBound(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	b.mount()
	b.ok("unmount", b.point)
	b.refused(1, "is bound to "+server.url+" and cannot be used with embedded", b.mountArgs("--embedded")...)
	b.env = append(b.env, "OPENAI_PROJECT_ID=proj")
	b.refused(1, server.url+" project proj", b.mountArgs()...)
}

func TestMountedTwice(t *testing.T) {
	eachUser(t, func(b *box) {
		b.mount("--embedded")
		b.refused(1, "is already mounted", b.mountArgs("--embedded")...)

		second := filepath.Join(b.dir, "second")
		require.NoError(b, os.Mkdir(second, 0o755))
		require.NoError(b, os.Chown(second, b.user.uid, b.user.uid))
		b.refused(1, fmt.Sprintf("in use by process %d for %s", b.pid(), b.point),
			"mount", "--embedded", "--state-dir", b.state, second)
		b.ok("unmount", b.point)
	})
}

// A mount that another user has is not ours to replace.
func TestMountedByAnother(t *testing.T) {
	all := users()
	b := newBox(t, all[len(all)-1])
	b.mount("--embedded")
	for _, u := range all[:len(all)-1] {
		other := &box{T: t, user: u, dir: b.dir, point: b.point, state: filepath.Join(b.dir, "other"), env: b.env}
		other.refused(1, "already mounted", other.mountArgs("--embedded")...)
	}
	b.ok("unmount", b.point)
}

// A killed daemon leaves a mount that answers nothing. It is replaced, and what
// was in it is there.
func TestDeadMountIsReplaced(t *testing.T) {
	eachUser(t, func(b *box) {
		b.mount("--embedded")
		b.shOK(`echo hello > "$M/a"`)
		file := b.info("a").FileID
		pid := b.pid()
		require.NoError(b, unix.Kill(pid, unix.SIGKILL))
		awaitEnd(b, pid)
		require.Contains(b, b.sh(`ls "$M"`).stderr, "not connected")
		b.refused(1, "no daemon answers", "status", b.point)

		b.mount("--embedded")
		require.Equal(b, "hello\n", b.shOK(`cat "$M/a"`))
		require.Equal(b, file, b.info("a").FileID)
		require.Contains(b, b.shOK("cat state/uploadfs.log"), "took the place of a mount whose daemon was killed")

		// Or it is taken away.
		pid = b.pid()
		require.NoError(b, unix.Kill(pid, unix.SIGKILL))
		awaitEnd(b, pid)
		r := b.uploadfs("unmount", b.point)
		require.Zero(b, r.code, r.stderr)
		require.Contains(b, r.stderr, "the daemon was gone")
		require.False(b, b.mounted())
	})
}

// A mount point is found through symlinks and relative paths, and one whose name
// the kernel escapes too.
func TestNamesOfMountPoints(t *testing.T) {
	eachUser(t, func(b *box) {
		b.point = filepath.Join(b.dir, "my \\up,\n#1")
		b.state = filepath.Join(b.dir, "a state,=dir "+strings.Repeat("long", 30))
		b.shOK(`mkdir "$M" && ln -s "$M" link`)
		r := b.uploadfs("mount", "--embedded", "--state-dir", filepath.Base(b.state), "link")
		require.Zero(b, r.code, r.stderr)
		b.cleanup()
		b.shOK(`echo hello > link/a`)
		require.Equal(b, b.point, b.status().MountPoint)
		require.Equal(b, b.state, b.status().StateDir)
		require.Contains(b, b.ok("status", "link"), `my \\up,\n#1`)
		b.refused(1, "nothing to try again", "retry", "link/a")
		b.ok("unmount", "./link")
		require.False(b, b.mounted())
	})
}

func TestDeviceIsClosed(t *testing.T) {
	for _, u := range users() {
		b := newBox(t, u)
		if u.uid == os.Geteuid() {
			b.mount("--embedded") // the user who runs this test may read it
			b.ok("unmount", b.point)
			continue
		}
		require.NoError(t, os.Chmod("/dev/fuse", 0o600)) // of this namespace
		b.refused(1, "/dev/fuse cannot be opened by you", b.mountArgs("--embedded")...)
		require.NoError(t, os.Chmod("/dev/fuse", 0o666))
		b.refused(1, "-o suid is for root only", b.mountArgs("--embedded", "-o", "suid")...)
	}
}
