package fusefs_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// TestToolExitStatus: the API refuses everything, and each tool's exit status shows
// whether it checks the result of close(2). docs/tools.md lists the tools that do not,
// and recommends `uploadfs wait` for them. Keep both lists the same.
func TestToolExitStatus(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage != local.StageHead {
			return nil
		}
		return &local.Fault{Status: 403, Message: "You have insufficient permissions for this operation."}
	})
	src, _ := source(t, 1*mib)
	small := smallFiles(t)
	for i, tool := range []struct {
		name, do string
		tells    bool
	}{
		{"cp", `cp "$1" f`, true},
		{"cp -a", `cp -a "$2" d`, true},
		{"cat", `cat "$1" > f`, true},
		{"dd", `dd if="$1" of=f bs=4k status=none`, true},
		{"tee", `tee f < "$1" > /dev/null`, true},
		{"install", `install "$1" f`, true},
		{"mv in", `cp "$1" "$3/f"; mv "$3/f" f`, true},
		{"split", `split -b 512k "$1" f.`, true},
		{"sort -o", `sort -o f "$2/a.txt"`, true},
		{"truncate", `truncate -s 1M f`, true},
		{"fallocate", `fallocate -l 1M f`, true},
		{"rsync --inplace", `rsync --inplace "$1" f`, true},
		{"tar c", `tar cf f.tar -C "$2" .`, true},
		{"tar x", `tar cf "$3/a.tar" -C "$2" . && tar xf "$3/a.tar"`, true},
		{"curl -o", `curl -sS -o f "file://$1"`, true},
		{"python, with", `python3 -c 'with open("f", "w") as f: f.write("x")'`, true},
		{"python, shutil", `python3 -c 'import shutil, sys; shutil.copy(sys.argv[1], "f")' "$1"`, true},

		{"a command of the shell's own", `echo x > f`, false},
		{"curl, redirected", `curl -sS "file://$1" > f`, false},
		{"tar cz", `tar czf f.tgz -C "$2" .`, false},
		{"unzip", `(cd "$2"; zip -qr "$3/a.zip" .); unzip -q "$3/a.zip"`, false},
		{"git, the worktree", `git init -q --template= "$3/o"; cp -r "$2"/. "$3/o"; git -C "$3/o" add .
			git -C "$3/o" -c user.name=a -c user.email=a@b commit -qm first; git --git-dir="$3/o/.git" --work-tree=. checkout -q -f HEAD`, false},
		{"sqlite3", `sqlite3 db 'create table t(a)'`, false},
		{"perl", `perl -e 'print 1' > f`, false},
		{"python, never closed", `python3 -c 'open("f", "w").write("x")'`, false},
		{"python, standard output", `python3 -c 'print(1)' > f`, false},
		// A rename does not wait.
		{"zip", `zip -qr f.zip "$2"`, false},
		{"git", `git init -q --template= r`, false},
		{"perl -i", `cp "$2/a.txt" "$3/f"; (echo x > f) && perl -pi -e s/x/y/ f`, false},
		{"mktemp", `f=$(mktemp ./XXXXXX); cat "$1" > "$f"; mv "$f" f`, false},
		{"tempfile", `python3 -c 'import tempfile; f = tempfile.NamedTemporaryFile("w", dir=".", prefix="a", suffix=".txt", delete=False); f.write("x"); f.close()'`, false},
		{"rsync", `rsync "$1" f`, false},
		{"sed -i", `cp "$2/a.txt" "$3/f"; (echo x > f) && sed -i s/x/y/ f`, false},
		{"os.replace", `python3 -c '
import os
with open("f.tmp", "w") as f: f.write("x")
os.replace("f.tmp", "f")'`, false},
	} {
		t.Run(tool.name, func(t *testing.T) {
			s := s.in(t)
			dir := fmt.Sprintf("%02d", i)
			out, err := s.sh("set -e; mkdir "+dir+"; cd "+dir+"\n"+tool.do, src, small, t.TempDir())
			if tool.tells {
				require.Error(t, err)
			} else {
				require.NoError(t, err, out)
			}
		})
	}
}
