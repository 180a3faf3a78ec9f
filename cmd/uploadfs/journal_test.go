//go:build linux

package main

import (
	"crypto/sha256"
	bigendian "encoding/binary"
	"encoding/hex"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

// contents are the checksums and modes of all regular files below dir but those
// that every attempt to mount writes to.
func contents(t *testing.T, dir string) map[string]string {
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "lock" || strings.HasPrefix(e.Name(), "uploadfs.log") {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		sums[path] = hex.EncodeToString(sum[:])
		return err
	})
	require.NoError(t, err)
	return sums
}

// A journal that cannot be trusted is not touched, and neither is anything else.
func TestJournalThatCannotBeUsed(t *testing.T) {
	const versionAt = 60 // of user_version in a SQLite file's header
	for name, c := range map[string]struct {
		text   string
		damage func(journal []byte) []byte
	}{
		"of a later version": {"use the newer uploadfs", func(j []byte) []byte { bigendian.BigEndian.PutUint32(j[versionAt:], 99); return j }},
		"no database":        {"it is damaged", func(j []byte) []byte { copy(j, "It was a dark and stormy night"); return j }},
		"cut short":          {"it is damaged", func(j []byte) []byte { return j[:len(j)/2] }},
		"overwritten":        {"it is damaged", func(j []byte) []byte { clear(j[4096 : len(j)-100]); return j }},
		"of something else":  {"it is damaged", func(j []byte) []byte { bigendian.BigEndian.PutUint32(j[versionAt:], 0); return j }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, users()[0])
			server := newAPI(t)
			server.use(b)
			b.mount()
			b.shOK(`echo hello > "$M/a"; mkdir "$M/d"; echo there > "$M/d/b"`)
			b.ok("unmount", b.point)
			journal := filepath.Join(b.state, "journal.db")
			whole, err := os.ReadFile(journal)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(journal, c.damage(append([]byte{}, whole...)), 0o600))
			before := contents(t, b.state)

			b.refused(1, c.text, b.mountArgs()...)
			require.False(t, b.mounted())
			require.Equal(t, before, contents(t, b.state), "nothing is touched")

			// It can be moved away, and then every file is kept.
			require.NoError(t, os.Rename(journal, journal+".old"))
			b.mount()
			require.Equal(t, state.Interrupted, b.info("a").State)
			require.Equal(t, state.Interrupted, b.info("d/b").State)
			b.uploadfs("unmount", b.point)

			// And be put back.
			require.NoError(t, os.WriteFile(journal, whole, 0o600))
			b.mount()
			require.Equal(t, state.Completed, b.info("a").State)
			b.ok("unmount", b.point)
		})
	}
}

// An endpoint that repeats the key to everybody does not get it into anything
// that is written down or shown.
func TestTheKeyIsNotRepeated(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	b.mount("--log-level", "debug", "--log-format", "json")
	seen := ""
	for name, f := range map[string]local.Fault{
		"refused":  {Status: http.StatusBadRequest, Message: "Incorrect API key provided: " + testKey + "."},
		"denied":   {Status: http.StatusUnauthorized, Message: "Incorrect API key provided: " + testKey + "."},
		"retrying": {Status: http.StatusBadGateway, RawBody: "<p>Authorization: Bearer " + testKey + "</p>"},
	} {
		server.SetIntercept(func(p local.Point) *local.Fault {
			if p.Stage == local.StageHead {
				return &f
			}
			return nil
		})
		cp := b.command("sh", "-c", `echo content > in; cp in "$0"`, filepath.Join(b.point, name))
		done := make(chan result, 1)
		go func() { done <- b.do(cp) }()
		want := state.Failed
		if name == "retrying" {
			want = state.Retrying
		}
		b.await(name, func() bool {
			r := b.uploadfs("info", "--json", filepath.Join(b.point, name))
			return r.code == 0 && strings.Contains(r.stdout, `"state":"`+string(want)+`"`)
		})
		seen += b.ok("status", b.point) + b.ok("status", "--json", b.point) + b.ok("info", filepath.Join(b.point, name)) +
			b.shOK(`getfattr -d -m - "$M/`+name+`"`)
		r := b.uploadfs("wait", "--timeout", "10ms", filepath.Join(b.point, name))
		require.Equal(b, 1, r.code)
		seen += r.stderr
		server.SetIntercept(nil)
		r = <-done
		seen += r.stdout + r.stderr
	}
	require.Contains(b, seen, "Incorrect API key", "the rest of the message is shown")

	cmdline, err := os.ReadFile(filepath.Join("/proc", b.shOK("head -1 state/lock | tr -d '\\n'"), "cmdline"))
	require.NoError(b, err)
	seen += string(cmdline)
	b.kill() // so that the write-ahead log is still there
	err = filepath.WalkDir(b.state, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		inTree := strings.HasPrefix(path, filepath.Join(b.state, "tree"))
		require.True(b, inTree || info.Mode().Perm()&0o077 == 0, "%s has mode %v", path, info.Mode())
		if e.Type().IsRegular() {
			text, err := os.ReadFile(path)
			seen += string(text)
			return err
		}
		return nil
	})
	require.NoError(b, err)
	require.Contains(b, seen, `"msg":"completed"`, "the log was read")
	require.Contains(b, seen, "CREATE TABLE", "the journal was read")
	require.NotContains(b, seen, testKey)
	require.NotContains(b, seen, testKey[len(testKey)-20:])

	r := b.uploadfs("unmount", b.point)
	require.Zero(b, r.code, r.stderr)
}

// A lock that a killed daemon has left is no lock.
func TestLockOfAKilledDaemon(t *testing.T) {
	b := newBox(t, users()[0])
	b.mount("--embedded")
	second := filepath.Join(b.dir, "second")
	require.NoError(b, os.Mkdir(second, 0o755))
	b.refused(1, "in use by process", "mount", "--embedded", "--state-dir", b.state, second)
	b.kill()
	require.NoError(b, unix.Unmount(b.point, unix.MNT_DETACH))
	b.point = second
	b.mount("--embedded")
	b.ok("unmount", second)
}
