//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMountSaysWhatItCannotObserve has an ordinary user open a mount to others: mount
// says what it cannot judge, status says it too, and the log has it.
func TestMountSaysWhatItCannotObserve(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can allow allow_other, in a mount namespace of its own")
	}
	b := newBox(t, users()[1])
	conf := filepath.Join(b.dir, "fuse.conf")
	require.NoError(t, os.WriteFile(conf, []byte("user_allow_other\n"), 0o644))
	// The namespace ends with the script, so the script unmounts.
	cmd := exec.Command("unshare", "-m", "--propagation=slave", "bash", "-euc", `
mount --bind "$1" /etc/fuse.conf
as() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
as "$2" mount --embedded -o allow_other --unseen-writers=commit --state-dir "$3" "$4" 2> "$5/said"
chmod 755 "$5"; as chmod 777 "$4"
setpriv --reuid=1 --regid=1 --clear-groups bash -c 'echo x > "$1/f"; getfattr --only-values -n user.uploadfs.state "$1/f"' bash "$4"
as "$2" status "$4" > "$5/status"
as "$2" status --json "$4" > "$5/json"
as "$2" unmount "$4"`, "bash", conf, binary, b.state, b.point, b.dir)
	cmd.Env, cmd.Dir = b.env, b.dir
	r := b.do(cmd)
	require.Zero(t, r.code, "%s%s", r.stdout, r.stderr)
	require.Equal(t, "completed", r.stdout, "with --unseen-writers=commit the close has waited")
	for name, want := range map[string][]string{
		"said":               {"note: programs of other users cannot be observed", "note: new files of other users belong to this user"},
		"status":             {"note        programs of other users cannot be observed", "--unseen-writers", "could not be observed"},
		"json":               {`"notes":["programs of other users`},
		"state/uploadfs.log": {"programs of other users cannot be observed", "could not be observed has written here"},
	} {
		text, err := os.ReadFile(filepath.Join(b.dir, name))
		require.NoError(t, err)
		for _, w := range want {
			require.Contains(t, string(text), w, name)
		}
	}
	b.refused(2, "unseen-writers", "mount", "--unseen-writers=both", b.point)
}
