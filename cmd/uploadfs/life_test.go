//go:build linux

package main

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/mount"
	"uploadfs/uploader/state"
)

// A first session, from mount to unmount.
func TestLifeOfAMount(t *testing.T) {
	eachUser(t, func(b *box) {
		b.mount("--embedded", "--purpose", "fine-tune", "--part-size", "8MiB")
		content := strings.Repeat("0123456789abcdef", 20<<20/16)
		require.NoError(b, os.WriteFile(filepath.Join(b.dir, "in.jsonl"), []byte(content), 0o644))
		b.shOK(`cp in.jsonl "$M/big file.jsonl"`)

		st := b.info("big file.jsonl")
		sum := md5.Sum([]byte(content))
		require.Equal(b, state.Completed, st.State)
		require.Equal(b, hex.EncodeToString(sum[:]), st.MD5)
		require.Len(b, st.PartIDs, 3)
		require.Equal(b, "fine-tune", st.Purpose)
		require.Equal(b, content, embeddedContent(b, st.FileID))

		people := b.ok("info", filepath.Join(b.point, "big file.jsonl"))
		for _, want := range []string{st.FileID, st.UploadID, st.PartIDs[2], "20 MiB (20,971,520 bytes)", "3/3 parts", "text/jsonl"} {
			require.Contains(b, people, want)
		}
		require.Empty(b, b.ok("wait", filepath.Join(b.point, "big file.jsonl")))

		rep := b.status()
		require.Equal(b, b.point, rep.MountPoint)
		require.Equal(b, b.state, rep.StateDir)
		require.Equal(b, "embedded", rep.Endpoint)
		require.Contains(b, []string{"passthrough", "writeback"}, rep.WritePath)
		require.Equal(b, b.pid(), rep.PID)
		require.Equal(b, 1, rep.Counts[state.Completed])
		require.GreaterOrEqual(b, rep.Disk.Used, int64(20<<20))
		require.Positive(b, rep.Disk.Free)
		require.Contains(b, b.ok("status"), b.point, "all mounts, this among them")
		require.Contains(b, b.ok("status", b.point), "1 completed")

		for name, mode := range map[string]os.FileMode{"": 0o700, "control.sock": 0o600, "embedded.json": 0o600, "uploadfs.log": 0o600, "journal.db": 0o600} {
			fi, err := os.Stat(filepath.Join(b.state, name))
			require.NoError(b, err)
			require.Equal(b, mode, fi.Mode().Perm(), name)
		}

		require.Empty(b, b.ok("unmount", b.point))
		require.False(b, b.mounted())
		require.Zero(b, b.pid(), "the daemon is gone when unmount returns")
		require.NoFileExists(b, filepath.Join(b.state, "control.sock"))
		require.NoFileExists(b, filepath.Join(b.state, "embedded.json"))

		// The same mount point finds its files again.
		b.mount("--embedded")
		require.Equal(b, st.FileID, b.info("big file.jsonl").FileID)
		require.Equal(b, content, b.shOK(`cat "$M/big file.jsonl"`))
		b.ok("umount", b.point)
	})
}

// embeddedContent fetches a File with what embedded.json says.
func embeddedContent(b *box, id string) string {
	text, err := os.ReadFile(filepath.Join(b.state, "embedded.json"))
	require.NoError(b, err)
	var server struct {
		BaseURL string `json:"base_url"`
		APIKey  string `json:"api_key"`
	}
	require.NoError(b, json.Unmarshal(text, &server))
	req, err := http.NewRequest(http.MethodGet, server.BaseURL+"/files/"+id+"/content", nil)
	require.NoError(b, err)
	req.Header.Set("Authorization", "Bearer "+server.APIKey)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(b, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(b, err)
	require.Equal(b, http.StatusOK, resp.StatusCode, "%s", body)
	return string(body)
}

func TestDefaultStateDirectory(t *testing.T) {
	eachUser(t, func(b *box) {
		b.state = filepath.Join(b.dir, ".local", "state", "uploadfs", mount.Escape(b.point))
		if b.user.uid == 0 {
			b.state = filepath.Join("/var/lib/uploadfs", mount.Escape(b.point))
			b.Cleanup(func() { os.RemoveAll(b.state) })
		}
		r := b.uploadfs("mount", "--embedded", b.point)
		require.Zero(b, r.code, r.stderr)
		b.cleanup()
		require.Equal(b, b.state, b.status().StateDir)
		b.ok("unmount", b.point)
	})
}

// A refusal is the writer's error, stays readable, and is tried again on demand.
func TestRefusedThenRetried(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	server.refuse(http.StatusBadRequest, "This organisation\nis tired.")
	b.mount()
	b.shOK(`printf hello > in`)
	r := b.sh(`cp in "$M/a.txt"`)
	require.NotZero(b, r.code)

	path := filepath.Join(b.point, "a.txt")
	st := b.info("a.txt")
	require.Equal(b, state.Failed, st.State)
	require.Contains(b, st.Error, "is tired.")
	b.refused(1, "is tired.", "wait", path)
	require.Contains(b, b.ok("status", b.point), "is tired.")

	server.SetIntercept(nil)
	require.Empty(b, b.ok("retry", path))
	b.ok("wait", "--timeout", testTimeout.String(), path)
	b.refused(1, "nothing to try again", "retry", path)
	require.Contains(b, b.ok("status", b.point), "1 completed")
	b.ok("unmount", b.point)
}

func TestWaitEndsWhereNoFileWillBe(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	b.mount("--exclude", "*.log", "--hold-for", "1h", "--close", "background")
	started, release := server.block(t)
	b.shOK(`: > "$M/empty"; echo x > "$M/a.log"; echo x > "$M/a.tmp"; echo x > "$M/slow"`)
	<-started
	at := func(name string) string { return filepath.Join(b.point, name) }
	b.refused(1, "empty, and the API has no empty Files", "wait", at("empty"))
	b.refused(1, "excluded by name", "wait", at("a.log"))
	b.refused(1, "not completed in time, still held", "wait", "--timeout", "50ms", at("a.tmp"))
	b.refused(1, "not completed in time, still uploading", "wait", "--timeout", "50ms", at("slow"))
	b.refused(2, "timeout -1s", "wait", "--timeout", "-1s", at("slow"))
	r := b.uploadfs("wait", "--timeout", "50ms", at("slow"), at("empty"), at("absent"))
	require.Equal(b, 1, r.code)
	require.Equal(b, 3, strings.Count(r.stderr, "\n"), "each path has its line: %s", r.stderr)

	release()
	b.ok("wait", at("slow"))
	b.ok("unmount", b.point)
}

// The key goes to the API and nowhere else.
func TestTheKeyStaysSecret(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	b.env = append(b.env, "OPENAI_BASE_URL="+server.url)
	key := filepath.Join(b.dir, "key")
	require.NoError(b, os.WriteFile(key, []byte("sk-wrong-0123456789abcdefghijklmnopqrstuv\n"), 0o644))
	b.mount("--api-key-file", key, "--no-check", "--log-level", "debug")

	r := b.sh(`echo hello > in; cp in "$M/a"`)
	require.NotZero(b, r.code, "the key is wrong")
	require.NotContains(b, r.stderr, "sk-wrong")
	require.Equal(b, state.Failed, b.info("a").State)
	require.NoError(b, os.WriteFile(key, []byte(testKey+"\n"), 0o644))
	b.shOK(`cp in "$M/b"`)
	require.Equal(b, state.Completed, b.info("b").State, "the file was read again")

	seen := b.ok("status", "--json", b.point) + b.ok("info", "--json", filepath.Join(b.point, "a"), filepath.Join(b.point, "b"))
	for _, of := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(filepath.Join("/proc", b.shOK("head -1 state/lock | tr -d '\n'"), of))
		require.NoError(b, err)
		seen += string(text)
	}
	b.ok("retry", filepath.Join(b.point, "a"))
	b.ok("wait", filepath.Join(b.point, "a"))
	b.ok("unmount", b.point)
	err := filepath.WalkDir(b.state, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			text, readErr := os.ReadFile(path)
			seen += string(text)
			return readErr
		}
		return err
	})
	require.NoError(b, err)
	require.NotContains(b, seen, testKey)
	require.NotContains(b, seen, "sk-wrong")
}

// Others read what they may read, and see how it stands.
func TestAllowOther(t *testing.T) {
	b := newBox(t, users()[0])
	if b.user.uid != 0 {
		// Two users are needed, and only root can be both.
		b.refused(2, "unknown mount option", b.mountArgs("--embedded", "-o", "allow_others")...)
		return
	}
	require.NoError(t, os.Chmod(b.dir, 0o755))
	b.mount("--embedded", "-o", "allow_other,noexec")
	b.shOK(`umask 022; echo hello > "$M/a"; mkdir -m 777 "$M/d"`)

	other := &box{T: t, user: users()[1], dir: b.dir, point: b.point, state: b.state, env: b.env}
	require.Equal(t, state.Completed, other.info("a").State)
	other.ok("wait", filepath.Join(b.point, "a"))
	other.shOK(`echo theirs > "$M/d/b"`)
	require.Equal(t, "65534\n", b.shOK(`stat -c %u "$M/d/b"`))
	other.refused(1, "belongs to another user", "status", b.point)
	other.refused(1, "belongs to another user", "retry", filepath.Join(b.point, "a"))
	other.refused(1, "belongs to another user", "unmount", b.point)
	require.Equal(t, "no uploadfs mounts\n", other.ok("status"))
	b.ok("unmount", b.point)
}

func TestVersion(t *testing.T) {
	b := newBox(t, users()[0])
	require.Regexp(t, `^uploadfs \S+, commit .+, go1\.`, b.ok("version"))
}
