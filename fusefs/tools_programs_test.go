package fusefs_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestToolArchives runs programs that pack and unpack.
func TestToolArchives(t *testing.T) {
	runTools(t, stackOptions{}, []tool{
		{name: "tar in", do: `tar cf "$3/a.tar" -C "$2" .; tar xf "$3/a.tar"; diff -r "$2" .; [[ ! a.txt -nt "$2/a.txt" ]]`},
		{name: "tar out", do: `cp "$2/a.txt" f; tar cf - f | tar xf - -C "$3"; cmp f "$3/f"`},
		{name: "tar to an archive", do: `tar cf a.tar -C "$2" .; tar rf a.tar -C "$2" a.txt; tar xf a.tar -C "$3"; diff -r "$2" "$3"`, uploads: 2},
		{name: "tar cz", do: `tar czf a.tgz -P "$1"; tar xzf a.tgz -P --to-stdout | cmp - "$1"`},
		{name: "tar within", do: `cp -r "$2" d; mkdir e; tar cf - -C d . | tar xf - -C e; diff -r d e`},
		{name: "tar --sparse", do: `truncate -s 1152K "$3/h"; echo end >> "$3/h"; tar cSf a.tar -C "$3" h; tar xSf a.tar; cmp h "$3/h"`},
		{name: "zip", do: `f=$PWD/a.zip; cd "$2"; zip -qr "$f" .; zip -qT "$f"`, later: true},
		{name: "zip -u", do: `f=$PWD/a.zip; cd "$2"; zip -qr "$f" a.txt; zip -qu "$f" b.jsonl; unzip -p "$f" b.jsonl | cmp - b.jsonl`, uploads: 2, later: true},
		{name: "unzip", do: `(cd "$2"; zip -qr "$3/a.zip" .); unzip -q "$3/a.zip"; diff -r "$2" .`},
		{name: "gzip", do: `cp "$2/b.jsonl" f; gzip f; gzip -dc f.gz | cmp - "$2/b.jsonl"; gzip -dk f.gz`, uploads: 3},
	})
}

// TestToolRsync: rsync writes under a held name and renames. It neither writes nor
// sends an unchanged file again.
func TestToolRsync(t *testing.T) {
	runTools(t, stackOptions{}, []tool{
		{name: "plain", do: `rsync "$1" f; cmp "$1" f`, later: true},
		{name: "-a", do: `rsync -a "$2/" .; rsync -a "$2/" .; diff -r "$2" .; [[ ! a.txt -nt "$2/a.txt" ]]`, later: true},
		{name: "-a within", do: `rsync -a "$2/" d/; rsync -a d/ e/; diff -r d e`, later: true},
		{name: "--inplace", do: `rsync --inplace "$1" f; cmp "$1" f`, later: true},
		{name: "--inplace with a change", do: `rsync -t --inplace "$1" f; cp "$1" "$3/g"; printf CHANGED | dd of="$3/g" bs=128K seek=3 conv=notrunc status=none
			rsync -t --inplace --no-whole-file "$3/g" f; cmp "$3/g" f`, uploads: 2, later: true},
		{name: "--no-whole-file with a change", do: `rsync -t "$2/b.jsonl" f; sed 5d "$2/b.jsonl" > "$3/g"; rsync -t --no-whole-file "$3/g" f; cmp "$3/g" f`, uploads: 2, later: true},
		{name: "--preallocate", do: `rsync --preallocate "$1" f; cmp "$1" f`, later: true},
		{name: "--append", do: `head -c 1000 "$2/a.txt" > f; rsync --append "$2/a.txt" f; cmp "$2/a.txt" f`, uploads: 2, later: true},
		{name: "--sparse", do: `truncate -s 1152K "$3/h"; echo end >> "$3/h"; rsync --sparse "$3/h" f; cmp "$3/h" f`, later: true},
		{name: "-X", do: `cp "$2/a.txt" "$3/a"; setfattr -n user.colour -v blue "$3/a"; rsync -aX "$3/a" f
			[[ $(getfattr --only-values -n user.colour f) = blue ]]`, later: true},
		{name: "--delay-updates", do: `rsync -r --delay-updates "$2/" .; diff -r "$2" .`, later: true},
		{name: "out", do: `cp "$2/a.txt" f; rsync -a f "$3/"; cmp f "$3/f"`},
	})
}

// TestToolEditors runs editors, which write the new content under another name and
// rename it.
func TestToolEditors(t *testing.T) {
	runTools(t, stackOptions{}, []tool{
		{name: "sed -i", do: `cp "$2/a.txt" f; sed -i s/line/row/ f; grep -q row f; sed s/line/row/ "$2/a.txt" | cmp - f`, uploads: 2, later: true},
		{name: "sed -i.bak", do: `cp "$2/a.txt" f; sed -i.bak s/line/row/ f; cmp "$2/a.txt" f.bak`, uploads: 2, later: true, sent: map[string]string{"f.bak": "f"}},
		{name: "perl -i", do: `cp "$2/a.txt" f; perl -pi -e s/line/row/ f; grep -q row f`, uploads: 2, later: true},
		{name: "vim, a new file", do: `vim -Nu NONE -es -c 'call setline(1, "text")' -c wq f < /dev/null; [[ $(cat f) = text ]]`, later: true},
		{name: "vim", do: `cp "$2/a.txt" f; vim -Nu NONE -es -c 'set writebackup' -c '%s/line/row/' -c wq f < /dev/null; sed s/line/row/ "$2/a.txt" | cmp - f`, uploads: 2, later: true},
		{name: "vim, backupcopy=yes", do: `cp "$2/a.txt" f; vim -Nu NONE -es -c 'set writebackup backupcopy=yes' -c '%s/line/row/' -c wq f < /dev/null; grep -q row f`, uploads: 2, later: true},
		{name: "vim, backupcopy=no", do: `cp "$2/a.txt" f; vim -Nu NONE -es -c 'set writebackup backupcopy=no' -c '%s/line/row/' -c w -c '%s/row/line/' -c wq f < /dev/null; cmp "$2/a.txt" f`, uploads: 3, later: true},
		{name: "patch", do: `cp "$2/a.txt" f; sed 5d f > "$3/g"; diff -u f "$3/g" > "$3/p" || true; patch -s f "$3/p"; cmp f "$3/g"`, uploads: 2, later: true},
	})
}

// TestToolDatabases: git and sqlite keep several files in step. They lock, map, sync
// and read them.
func TestToolDatabases(t *testing.T) {
	identity := `export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
		export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=core.hooksPath GIT_CONFIG_VALUE_0=/dev/null
		git init -q --template= "$3/o"; cp -r "$2"/. "$3/o"; git -C "$3/o" add .; git -C "$3/o" commit -qm first
	`
	s := newStack(t, stackOptions{})
	small := smallFiles(t)
	t.Run("git", func(t *testing.T) {
		s := s.in(t)
		s.run("set -e; "+identity+`git clone -q --template= "$3/o" r; cd r; echo more >> a.txt; git commit -qam second
			git gc -q; git fsck --strict --no-progress; git status --porcelain | cmp - /dev/null; diff -r sub "$2/sub"`, "", small, t.TempDir())
		s.allCompleted("r", true, nil)
		for _, f := range s.API.Files() {
			require.NotRegexp(t, `\.lock$|^\.?tmp|_\w{6}$|\.new$`, f.Filename, "a temporary name")
		}
	})
	runTools(t, stackOptions{}, []tool{
		{name: "sqlite, rollback journal kept", do: `sqlite3 db "pragma journal_mode=truncate; pragma synchronous=normal; create table t(a); insert into t select value from generate_series(1, 10000);" > /dev/null
			[[ $(sqlite3 -readonly db "pragma integrity_check; select count(*) from t") = $'ok\n10000' ]]`},
		{name: "sqlite, rollback journal", do: `sqlite3 db "create table t(a)" "insert into t values(1)" "insert into t values(2)" "begin; delete from t; rollback"
			[[ $(sqlite3 -readonly db "pragma integrity_check; select count(*) from t") = $'ok\n2' ]]`},
		{name: "sqlite, WAL", do: `sqlite3 db "pragma journal_mode=wal; create table t(a); insert into t select value from generate_series(1, 10000); update t set a = a + 1;" > /dev/null
			[[ $(sqlite3 db "pragma integrity_check; select sum(a) from t") = $'ok\n50015000' ]]`},
		{name: "sqlite, two programs", do: `sqlite3 db "create table t(a)"
			for i in 1 2 3; do sqlite3 -cmd '.timeout 60000' db "insert into t select value from generate_series(1, 100)" & done; wait
			[[ $(sqlite3 db "pragma integrity_check; select count(*) from t") = $'ok\n300' ]]`, uploads: 4, together: true},
	})
}

// TestToolDownload runs curl, with a server that gives the length and one that does
// not.
func TestToolDownload(t *testing.T) {
	_, content := source(t, 9*partSize/8+123)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		}
		w.Write(content)
	}))
	t.Cleanup(server.Close)
	get := `curl -sSf ` + server.URL
	runTools(t, stackOptions{}, []tool{
		{name: "curl -o", do: get + ` -o f; cmp "$1" f`},
		{name: "curl -o, length unknown", do: get + `/chunked -o f; cmp "$1" f`},
		{name: "curl >", do: get + ` > f; cmp "$1" f`},
		{name: "curl file:", do: `curl -sSf -o f "file://$1"; cmp "$1" f`},
		{name: "curl -C", do: `head -c 640K "$1" > f; curl -sSf -C - -o f "file://$1"; cmp "$1" f`, uploads: 2},
	})
}

// TestToolPython runs typical Python scripts.
func TestToolPython(t *testing.T) {
	var tools []tool
	for _, p := range []struct {
		name, script string
		uploads      int
		sent         map[string]string
	}{
		{"json lines", `
import json
with open("f.jsonl", "w") as f:
    for i in range(20000):
        f.write(json.dumps({"i": i, "text": "x" * 20}) + "\n")
        if i % 5000 == 0: f.flush()
`, 0, nil},
		{"mmap", `
import mmap
with open("f", "wb") as f: f.truncate(9 << 17)
with open("f", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
    for i in range(0, 9 << 17, 6000): m[i:i+5] = b"store"
    m.flush()
`, 2, nil},
		{"shutil", `
import os, shutil, sys
src, small = sys.argv[1:3]
shutil.copyfile(src, "f"); shutil.copy2(src, "g"); shutil.copytree(small, "d"); shutil.move("g", "h")
with open(src, "rb") as a, open("i", "wb") as b: shutil.copyfileobj(a, b)
shutil.make_archive("j", "zip", small)
`, 0, map[string]string{"h": "g"}},
		{"a header written last", `
import wave, random
with wave.open("f.wav", "wb") as w:
    w.setnchannels(1); w.setsampwidth(2); w.setframerate(8000)
    for i in range(300): w.writeframes(random.randbytes(32768))
with wave.open("f.wav") as w: assert w.getnframes() == 300 * 16384
`, 0, nil},
		{"a log that stays open", `
import os, logging, subprocess
logging.basicConfig(filename="f.log", level=logging.INFO)
for i in range(200):
    logging.info("line %d", i)
    if i % 50 == 0: subprocess.run(["true"])
assert os.getxattr("f.log", "user.uploadfs.state") == b"writing"
logging.shutdown()
`, 0, nil},
		{"numpy's way: seek, tell, truncate", `
with open("f", "w+b") as f:
    f.write(b"\0" * 5000); f.seek(10); f.write(b"ten"); f.seek(0, 2); f.write(b"end"); f.truncate(5001); f.seek(0); assert len(f.read()) == 5001
`, 0, nil},
		{"zipfile", `
import os, sys, zipfile
with zipfile.ZipFile("f.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for n in os.listdir(sys.argv[2]): z.write(os.path.join(sys.argv[2], n), n)
with zipfile.ZipFile("f.zip", "a") as z: z.writestr("late", "text")
assert zipfile.ZipFile("f.zip").testzip() is None
`, 2, nil},
		{"sqlite3", `
import sqlite3
c = sqlite3.connect("f.db", isolation_level=None); c.execute("pragma journal_mode=memory"); c.execute("create table t(a, b)")
for i in range(20): c.execute("begin"); c.executemany("insert into t values(?, ?)", [(j, "x" * 50) for j in range(50)]); c.execute("commit")
assert c.execute("select count(*) from t").fetchone() == (1000,)
c.close()
`, 0, nil},
		{"threads", `
import os, threading
with open("f", "wb") as f:
    def work(n):
        for i in range(n, 160, 4): os.pwrite(f.fileno(), bytes([i]) * 60000, i * 60000)
    all = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in all: t.start()
    for t in all: t.join()
`, 0, nil},
	} {
		file := filepath.Join(t.TempDir(), "script.py")
		require.NoError(t, os.WriteFile(file, []byte(strings.TrimSpace(p.script)), 0o644))
		tools = append(tools, tool{name: p.name, do: `python3 ` + file + ` "$@"`, uploads: p.uploads, sent: p.sent})
	}
	runTools(t, stackOptions{}, tools)
}
