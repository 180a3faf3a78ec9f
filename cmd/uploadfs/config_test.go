//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"uploadfs/mount"
	"uploadfs/uploader/state"
)

// Variables are a mount's configuration: a flag beats its variable, and a name that
// stands for no flag is a warning, said once.
func TestMountByVariables(t *testing.T) {
	eachUser(t, func(b *box) {
		b.env = append(b.env, "UPLOADFS_EMBEDDED=true", "UPLOADFS_PURPOSE=evals", "UPLOADFS_CLOSE=background", `UPLOADFS_EXCLUDE=*.log,"a,b"`,
			"UPLOADFS_STATE_DIR="+b.state, "UPLOADFS_CHECKSUM=", "UPLOADFS_PARALEL=3", "UPLOADFS_PORT_80_TCP=tcp://10.0.0.1:80", "UPLOADFS_SERVICE_HOST=10.0.0.1")
		r := b.uploadfs("mount", "--close", "wait", b.point)
		require.Zero(b, r.code, r.stderr)
		b.cleanup()
		require.Equal(b, "uploadfs: warning: UPLOADFS_PARALEL stands for no flag: did you mean UPLOADFS_PARALLEL?\n", r.stderr)
		b.shOK(`echo 1 > "$M/x.log"; echo 2 > "$M/a,b"; cp "$M/x.log" "$M/f"`)
		require.Equal(b, state.Excluded, b.info("x.log").State)
		require.Equal(b, state.Excluded, b.info("a,b").State)
		f := b.info("f")
		require.Equal(b, state.Completed, f.State, "close has waited")
		require.Equal(b, "evals", f.Purpose)
		require.Contains(b, b.ok("__complete", "unmount", ""), b.point+"\n")
		b.env = append(b.env, "UPLOADFS_CLOSE=never")
		r = b.uploadfs("mount", b.point)
		require.Equal(b, 2, r.code)
		require.Contains(b, r.stderr, "UPLOADFS_CLOSE: ")
		b.ok("unmount", b.point)
	})
}

// call runs the command in this process.
func call(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	require.Zero(t, run(args, &out, &errs), "%s", &errs)
	return out.String()
}

func TestConfigShow(t *testing.T) {
	t.Setenv("UPLOADFS_PURPOSE", "batch")
	t.Setenv("UPLOADFS_CLOSE", "background")
	t.Setenv("UPLOADFS_HOLD", `"a,b",c`)
	t.Setenv("UPLOADFS_HTTP", "127.0.0.1:9090")
	t.Setenv("UPLOADFS_JSON", "true")
	t.Setenv("OPENAI_API_KEY", testKey)
	t.Setenv("OPENAI_BASE_URL", "https://user:secret@example.org/v1/")
	t.Setenv("OPENAI_ORG_ID", "org-1")
	var list []setting
	out := call(t, "config", "show", "--close", "wait", "--no-hold")
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	for _, want := range []setting{
		{"purpose", "batch", "UPLOADFS_PURPOSE"},
		{"close", "wait", "flag"},
		{"no-hold", "true", "flag"},
		{"hold", `"a,b",c`, "UPLOADFS_HOLD"},
		{"http", "127.0.0.1:9090", "UPLOADFS_HTTP"},
		{"part-size", "64MiB", "default"},
		{"base-url", "https://example.org/v1", "OPENAI_BASE_URL"},
		{"api-key", "[secret]", "OPENAI_API_KEY"},
		{"organization", "org-1", "OPENAI_ORG_ID"},
	} {
		require.Contains(t, list, want)
	}
	require.NotContains(t, out, "secret@")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "api-key"), []byte(testKey), 0o600))
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("UPLOADFS_JSON", "false")
	out = call(t, "config", "show", "--base-url", "https://other.example/v1")
	require.Regexp(t, `(?m)^api-key-file +`+dir+`/api-key +CREDENTIALS_DIRECTORY$`, out)
	require.Regexp(t, `(?m)^base-url +https://other.example/v1 +flag$`, out)
	require.NotContains(t, out, "OPENAI_API_KEY")
	require.NotContains(t, out, testKey)
}

func TestCompletions(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"mount --close ", "wait\nbackground\n:4\n"},
		{"mount --purpose ", "assistants\nbatch\n"},
		{"mount --state-dir ", ":16\n"},
		{"mount --api-key-file ", ":0\n"},
		{"mount --drain-timeout ", ":4\n"},
		{"mount ", ":16\n"},
		{"serve --fail-mode ", "500\n429\nreset\nlost\n:4\n"},
		{"status --state ", "writing\nuploading\n"},
		{"put ", ":0\n"},
	} {
		require.True(t, strings.HasPrefix(call(t, append([]string{"__complete"}, strings.Split(c.line, " ")...)...), c.want), c.line)
	}
}

// Each command has a man page, and each page the flags of its command.
func TestManPages(t *testing.T) {
	dir := t.TempDir()
	call(t, "man", dir)
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		page, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		require.NoError(t, err)
		require.Contains(t, string(page), cmd.Short)
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				check(sub)
			}
		}
	}
	check(newRoot())
	page, err := os.ReadFile(filepath.Join(dir, "uploadfs-mount.1"))
	require.NoError(t, err)
	for _, s := range settings(mountCommand().Flags(), new(mount.Config)) {
		require.Contains(t, strings.ReplaceAll(string(page), `\-`, "-"), "--"+s.Name)
	}
}
