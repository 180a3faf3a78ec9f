package fusefs_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/local"
)

// umasks are those that matter: none, the usual one, and one under which every file
// looks like one of mkstemp(3).
var umasks = []string{"000", "022", "027", "077"}

// python calls mkstemp(3)'s twin in Python and goes on with the file f, whose name is in n.
const python = `python3 -c '
import os, tempfile
f, n = tempfile.mkstemp(dir=".", prefix="x", suffix=".dat"); n = os.path.basename(n); os.write(f, b"text")
%s'`

// temporaryTools write a file under a name that says nothing, and then give it the name
// h.jsonl.
var temporaryTools = map[string]string{
	"perl -i":                   `cp "$1" h.jsonl; perl -pi -e s/0/1/ h.jsonl`,
	"File::Temp":                `perl -MFile::Temp=tempfile -e '($f, $n) = tempfile(DIR => "."); print $f "text"; close $f; rename $n, "h.jsonl"'`,
	"mktemp":                    `f=$(mktemp ./aXXXXXX); cat "$1" > $f; mv $f h.jsonl`,
	"mktemp, a suffix":          `f=$(mktemp ./aXXXXXX.txt); cat "$1" > $f; mv $f h.jsonl`,
	"mkstemp":                   fmt.Sprintf(python, `os.close(f); os.rename(n, "h.jsonl")`),
	"mkstemp, renamed open":     fmt.Sprintf(python, `os.rename(n, "h.jsonl"); os.close(f)`),
	"mkstemp, linked":           fmt.Sprintf(python, `os.close(f); os.link(n, "h.jsonl"); os.unlink(n)`),
	"mkstemp, in a directory":   fmt.Sprintf(python, `os.mkdir("d"); os.close(f); os.rename(n, "d/x.tmp"); os.rename("d", "e"); os.rename("e/x.tmp", "h.jsonl"); os.rmdir("e")`),
	"NamedTemporaryFile":        `python3 -c 'import os, tempfile; f = tempfile.NamedTemporaryFile("w", dir=".", suffix=".csv", delete=False); f.write("text"); f.close(); os.replace(f.name, "h.jsonl")'`,
	"os.CreateTemp":             `FUSEFS_TEST_HELPER=createTemp "$TESTS" h.jsonl`,
	"a lock, made by its owner": `python3 -c 'import os; f = os.open("h.lock", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666); os.write(f, b"text"); os.close(f); os.rename("h.lock", "h.jsonl")'`,
}

// createTempHelper writes a file as Go programs do, and gives it its name.
func createTempHelper(args []string) error {
	f, err := os.CreateTemp(".", "name*.txt")
	if err != nil {
		return err
	}
	if _, err := f.WriteString("text"); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), args[0])
}

// TestToolTemporaryFile: a file that gets its final name later makes one File, under that
// name and with its mime type.
func TestToolTemporaryFile(t *testing.T) {
	s := newStack(t, stackOptions{Names: uploader.NamePolicy{HoldFor: time.Hour}})
	small := smallFiles(t)
	program, err := filepath.EvalSymlinks("/proc/self/exe")
	require.NoError(t, err)
	for row, name := range slices.Sorted(maps.Keys(temporaryTools)) {
		do := temporaryTools[name]
		for column, umask := range umasks {
			if !sampled(row, column, len(temporaryTools), len(umasks)) {
				continue
			}
			t.Run(name+", umask "+umask, func(t *testing.T) {
				s := s.in(t)
				before := s.API.Stats()
				dir := fmt.Sprintf("%s %s", strings.ReplaceAll(name, "/", ""), umask)
				s.run(`set -e; mkdir "$2"; cd "$2"; TESTS=$3; umask `+umask+"\n"+do, small+"/b.jsonl", dir, program)
				require.Equal(t, "h.jsonl", s.run(`ls -A "$1"`, dir), "nothing else is left")
				s.eventually(dir+"/h.jsonl", "completed")
				s.sameAsFile(dir + "/h.jsonl")
				files := int64(1)
				if strings.HasPrefix(do, "cp ") {
					files++
				}
				require.Equal(t, before.FilesCreated+files, s.API.Stats().FilesCreated)
				require.Equal(t, before.UploadsCreated+files, s.API.Stats().UploadsCreated)
			})
		}
	}
	for _, f := range s.API.Files() {
		require.Equal(t, "h.jsonl", f.Filename)
		require.Equal(t, "text/jsonl", f.MimeType)
	}
}

// TestToolTemporaryFileKeepsItsName: a file of mkstemp(3) that is not renamed is held
// across a new mount, and sent in time.
func TestToolTemporaryFileKeepsItsName(t *testing.T) {
	s := newStack(t, stackOptions{Names: uploader.NamePolicy{HoldFor: time.Hour}})
	s.run(`mkdir d; mktemp d/empty-XXX; f=$(mktemp d/full-XXX.txt); echo text > $f; mv $f d/full.part; mv d e; mv e/empty-* e/empty`)
	require.Equal(t, "held", s.attr("e/full.part", "state"))
	require.Equal(t, "empty", s.attr("e/empty", "state"))
	s.run(`f=$(mktemp e/kept-XXX.txt); echo text > $f; ln $f e/kept.tmp; rm $f`)
	require.Equal(t, "held", s.attr("e/kept.tmp", "state"))
	s.run(`cd e; f=$(mktemp ./mine-XXX); echo text > $f; mv $f mine.lock`)
	require.Equal(t, "held", s.attr("e/mine.lock", "state"))

	s.unmount()
	s.mount()
	require.Equal(t, "held", s.attr("e/mine.lock", "state"), "the journal has it")
	require.Zero(t, s.API.Stats().UploadsCreated)
	s.run(`echo more >> e/mine.lock`)
	require.Equal(t, "held", s.attr("e/mine.lock", "state"))
	s.run(`echo more >> e/empty`)
	s.completed("e/empty", []byte("more\n"))

	s.opts.Names.HoldFor = 20 * time.Millisecond
	s.unmount()
	s.mount()
	s.eventually("e/mine.lock", "completed")
	s.completed("e/mine.lock", []byte("text\nmore\n"))
	require.Equal(t, "mine.lock", s.attr("e/mine.lock", "filename"))

	s.opts.Names = uploader.NamePolicy{HoldFor: time.Hour, NoHold: true}
	s.unmount()
	s.mount()
	s.run(`f=$(mktemp new-XXX); echo text > $f; [[ $(getfattr --only-values -n user.uploadfs.state $f) = completed ]]`)
}

// TestToolCloseTellsUnderEachUmask: the tools that are not held fail where the API
// refuses, whatever the umask and the mode of their file.
func TestToolCloseTellsUnderEachUmask(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage != local.StageHead {
			return nil
		}
		return &local.Fault{Status: 403, Message: "You have insufficient permissions for this operation."}
	})
	small := smallFiles(t)
	closing := map[string]string{
		"cp":               `cp "$1" f`,
		"cp -p":            `cp -p "$1" f`,
		"cp, private":      `cp "$2/private" f`,
		"cp -p, private":   `cp -p "$2/private" f`,
		"mv":               `cp "$1" "$2/f"; mv "$2/f" f`,
		"mv, private":      `mv "$2/private" f`,
		"install":          `install "$1" f`,
		"install -m 600":   `install -m 600 "$1" f`,
		"tar x":            `tar cf "$2/a.tar" -C "$2" private; tar xf "$2/a.tar"`,
		"tar xp":           `tar cf "$2/a.tar" -C "$2" private; tar xpf "$2/a.tar"`,
		"gzip":             `(echo text > f) || true; gzip f`,
		"gzip, private":    `(echo text > f) || true; chmod 600 f; gzip f`,
		"xz":               `(echo text > f) || true; xz f`,
		"xz, private":      `(echo text > f) || true; chmod 600 f; xz f`,
		"exclusive":        `python3 -c 'import os; f = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600); os.write(f, b"x"); os.close(f)'`,
		"not exclusive":    `python3 -c 'import os; f = os.open("f", os.O_RDWR | os.O_CREAT, 0o600); os.write(f, b"x"); os.close(f)'`,
		"mode 0666":        `python3 -c 'import os; f = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666); os.write(f, b"x"); os.close(f)'`,
		"mode 0640":        `python3 -c 'import os; f = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640); os.write(f, b"x"); os.close(f)'`,
		"set -o noclobber": `set -C; cat "$1" > f`,
		"cp, a lock file":  `cp "$1" poetry.lock`,
	}
	for row, name := range slices.Sorted(maps.Keys(closing)) {
		do := closing[name]
		required := slices.Contains([]string{"cp", "cp -p", "mv", "install", "tar x", "gzip", "xz", "mode 0666"}, name)
		for column, umask := range umasks {
			if !required && !sampled(row, column, len(closing), len(umasks)) {
				continue
			}
			t.Run(name+", umask "+umask, func(t *testing.T) {
				s := s.in(t)
				other := t.TempDir()
				dir := name + " " + umask
				s.run(`mkdir "$1"; echo text > "$2/private"; chmod 600 "$2/private"`, dir, other)
				out, err := s.sh(`set -e; cd "$3"; umask `+umask+"\n"+do, small+"/a.txt", other, dir)
				require.Error(t, err, out)
			})
		}
	}
}

// TestToolRenamedAtTheLastClose: between the last FLUSH and RELEASE, which a thread that
// waits for a lock delays, the file gets its final name.
func TestToolRenamedAtTheLastClose(t *testing.T) {
	s := newStack(t, stackOptions{Names: uploader.NamePolicy{HoldFor: time.Hour}})
	const script = `python3 -c '
import fcntl, os, sys, threading, time
name, flags = sys.argv[1], int(sys.argv[2])
f = os.open(name, os.O_RDWR | os.O_CREAT | flags, 0o600)
g = os.open(name, os.O_RDONLY)
fcntl.flock(g, fcntl.LOCK_EX)
waits = threading.Thread(target=fcntl.flock, args=(f, fcntl.LOCK_EX))
waits.start()
mark = ":%d " % os.fstat(f).st_ino
while not any("-> FLOCK" in line and mark in line for line in open("/proc/locks")): time.sleep(0.001)
os.write(f, b"text")
os.close(f)
assert os.getxattr(name, "user.uploadfs.state") == b"held"
os.rename(name, name + ".jsonl")
assert os.getxattr(name + ".jsonl", "user.uploadfs.state") == b"held"
os.close(g)
waits.join()' "$@"`
	for name, flags := range map[string]int{"f.tmp": 0, "mkstemp": os.O_EXCL} {
		s.run(script, name, fmt.Sprint(flags))
		s.eventually(name+".jsonl", "completed")
		s.completed(name+".jsonl", []byte("text"))
		s.sentAs([]string{name + ".jsonl"}, "")
	}
}

// TestToolWaitsUnderTheNameItHasThen: during an outage files get other names. They are
// sent under those, or not at all.
func TestToolWaitsUnderTheNameItHasThen(t *testing.T) {
	s := newStack(t, stackOptions{Background: true, Names: uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}})
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpCreate && p.Stage == local.StageHead {
			return &local.Fault{Status: 503, Message: "later"}
		}
		return nil
	})
	s.run(`mkdir d; for f in a b c d/d e; do echo $f > $f.txt; done`)
	for _, name := range []string{"a", "b", "c", "d/d", "e"} {
		require.Eventually(t, func() bool {
			// One of them waits until another has made its call.
			return slices.Contains([]string{"uploading", "retrying"}, s.attr(name+".txt", "state"))
		}, patience, time.Millisecond, name)
		require.Empty(t, s.attr(name+".txt", "filename"))
	}
	s.run(`mv a.txt a.jsonl; mv b.txt b.tmp; mv c.txt c.log; mv d d.csv; mv e.txt e.txt~`)
	require.Equal(t, "held", s.attr("b.tmp", "state"))
	require.Equal(t, "excluded", s.attr("c.log", "state"))
	require.Equal(t, "excluded", s.attr("e.txt~", "state"))
	require.Zero(t, s.API.Stats().UploadsCreated)
	s.API.SetIntercept(nil)
	for name, content := range map[string]string{"a.jsonl": "a\n", "d.csv/d.txt": "d/d\n"} {
		s.eventually(name, "completed")
		s.completed(name, []byte(content))
		s.sentAs([]string{name}, "")
	}
	s.run(`mv b.tmp b.md; mv c.log c.md; mv e.txt~ e.md`)
	for _, name := range []string{"b.md", "c.md", "e.md"} {
		s.eventually(name, "completed")
		s.sentAs([]string{name}, "")
	}
	require.Len(t, s.API.Files(), 5)
}
