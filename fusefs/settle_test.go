package fusefs_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/local"
)

// settleLong is a mount whose files settle for longer than any test takes: what ends
// that is what the test does.
func settleLong() stackOptions {
	return stackOptions{Background: true, Settle: time.Hour, Names: uploader.NamePolicy{HoldFor: time.Hour}}
}

// settles checks that the file waits, and that nothing of it has been declared.
func (s *stack) settles(name string) {
	s.t.Helper()
	require.Equal(s.t, "uploading", s.attr(name, "state"))
	require.Empty(s.t, s.attr(name, "upload_id"))
}

// send ends the settling of a file, and waits for its File.
func (s *stack) send(name string) {
	s.t.Helper()
	require.NoError(s.t, s.Up.Retry(name))
	s.eventually(name, "completed")
	s.sameAsFile(name)
}

// fileNames are the names of all Files, in the order in which they were made.
func (s *stack) fileNames() (names []string) {
	for _, f := range s.API.Files() {
		names = append(names, f.Filename)
	}
	return names
}

// TestSettleMakesOneFile: programs that open, write and close a file many times within
// its time to settle make one File.
func TestSettleMakesOneFile(t *testing.T) {
	src, _ := source(t, 3*partSize/8) // no chunk is full before its close
	for name, script := range map[string]string{
		"80 appends":          `for i in {1..80}; do echo "line $i" >> f; done`,
		"80 appends by hands": `for i in {1..8}; do (for k in {1..10}; do echo "line $i $k" >> f; done) & done; wait`,
		"rewritten":           `for i in {1..20}; do cp "$1" f; echo "$i" >> f; done`,
		"restore": `python3 - "$1" <<'END'
import os, sys
data = open(sys.argv[1], "rb").read()
blob = 8 << 10
with open("f", "wb") as f: f.truncate(len(data))
for off in sorted(range(0, len(data), blob), key=lambda off: off * 7919 % 104729):
    fd = os.open("f", os.O_WRONLY)
    os.pwrite(fd, data[off:off+blob], off)
    os.close(fd)
END
cmp "$1" f`,
		"chunks":              `for i in 0 1 2; do dd if="$1" of=f bs=128K skip=$i seek=$i count=1 conv=notrunc status=none & done; wait; cmp "$1" f`,
		"replaced by renames": `for i in {1..20}; do echo "version $i" > f.tmp; mv f.tmp f; done`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, settleLong())
			s.run(script, src)
			require.Equal(t, "uploading", s.attr("f", "state"))
			s.send("f")
			require.Equal(t, []string{"f"}, s.fileNames())
			require.Equal(t, int64(1), s.API.Stats().UploadsCreated, "no Upload is cancelled")
		})
	}
}

// TestSettleEnds: a file is sent when it has been closed and quiet for its time.
func TestSettleEnds(t *testing.T) {
	s := newStack(t, stackOptions{Background: true, Settle: 10 * time.Millisecond, Names: uploader.NamePolicy{HoldFor: time.Hour}})
	s.run(`echo one > f; echo two > g.tmp; mv g.tmp g`)
	for _, name := range []string{"f", "g"} {
		s.eventually(name, "completed")
		s.sameAsFile(name)
	}
	require.Len(t, s.API.Files(), 2)

	p := s.start(`
import os, sys
f = os.open("f", os.O_WRONLY | os.O_APPEND)
print("open", flush=True)
sys.stdin.readline()
os.close(f)
`)
	p.expect("open")
	s.run(`echo more >> f; echo after > h`)
	s.eventually("h", "completed")
	s.settles("f") // it was closed before h, and another program still has it open
	p.send("go on")
	require.NoError(t, p.wait())
	s.eventually("f", "completed")
	s.completed("f", []byte("one\nmore\n"))
	require.Len(t, s.API.Files(), 4)
}

// TestSettleHasALimit: a close is sent after --hold-for, also where the file is never
// closed and quiet for its time.
func TestSettleHasALimit(t *testing.T) {
	o := settleLong()
	o.Names.HoldFor = 50 * time.Millisecond
	t.Run("not quiet for long enough", func(t *testing.T) {
		s := newStack(t, o)
		s.run(`echo a > f`)
		s.eventually("f", "completed")
		s.completed("f", []byte("a\n"))
	})
	t.Run("open", func(t *testing.T) {
		s := newStack(t, o)
		p := s.start(`
import os, sys
f = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("open", flush=True)
sys.stdin.readline()
os.write(f, b"last\n")
os.close(f)
`)
		p.expect("open")
		s.run(`echo a >> f`)
		s.eventually("f", "completed")
		s.completed("f", []byte("a\n"))
		p.send("go on")
		require.NoError(t, p.wait())
		s.eventually("f", "completed")
		s.completed("f", []byte("a\nlast\n"))
	})
	t.Run("appended all the time", func(t *testing.T) {
		s := newStack(t, o)
		p := s.start(`
import os, select, sys
n = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with open("f", "a") as f: f.write("line\n")
    n += 1
print("ended", flush=True)
`)
		require.Eventually(t, func() bool { return len(s.API.Files()) >= 2 }, patience, time.Millisecond,
			"the appender starves its File")
		p.send("end")
		p.expect("ended")
		require.NoError(t, p.wait())
		s.eventually("f", "completed")
		s.sameAsFile("f")
		s.prefixes(s.read("f"))
	})
}

// TestSettleTakesTheFinalName renames files while they settle.
func TestSettleTakesTheFinalName(t *testing.T) {
	o := settleLong()
	o.Names.Exclude = []string{"*.log", "logs/*"}
	s := newStack(t, o)
	s.run(`mkdir d logs; for f in a b c d/e g h i; do echo $f > $f.new; done`)
	s.run(`mv a.new a.jsonl
mv b.new b.tmp # held
mv c.new c.log # excluded
mv d dir # with a file in it
ln g.new g.txt; rm g.new
mv h.new logs/h; mv logs/h h.csv
exec 3>> i.new; mv i.new i.log; exec 3>&-`)
	for name, state := range map[string]string{
		"a.jsonl": "uploading", "b.tmp": "held", "c.log": "excluded", "dir/e.new": "uploading",
		"g.txt": "uploading", "h.csv": "uploading", "i.log": "excluded",
	} {
		s.eventually(name, state) // a RELEASE may be on its way
	}
	require.Zero(t, s.API.Stats().UploadsCreated)
	s.run(`mv b.tmp b.md`)
	for _, name := range []string{"a.jsonl", "b.md", "dir/e.new", "g.txt", "h.csv"} {
		s.send(name)
	}
	require.ElementsMatch(t, []string{"a.jsonl", "b.md", "e.new", "g.txt", "h.csv"}, s.fileNames())
	require.Equal(t, "text/jsonl", s.attr("a.jsonl", "mime_type"))
}

// TestSettleOfWhatGoes: what is removed or emptied while it settles is never sent, and
// what is half-written then neither.
func TestSettleOfWhatGoes(t *testing.T) {
	s := newStack(t, settleLong())
	s.run(`for f in a b c; do echo $f > $f; done; rm a; : > b`)
	require.Equal(t, "empty", s.attr("b", "state"))
	p := s.start(`
import os, sys
f = os.open("c", os.O_WRONLY)
os.write(f, b"ha")
os.fsync(f)
print("written", flush=True)
sys.stdin.readline()
`)
	p.expect("written")
	require.NoError(t, p.cmd.Process.Kill())
	require.Error(t, p.wait())
	s.eventually("c", "interrupted")
	require.Empty(t, s.Up.Drain(context.Background()))
	require.Zero(t, s.API.Stats().UploadsCreated)
	s.send("c")
}

// TestSettleAcrossMounts: the end of a mount sends what settles, and the next mount
// what the end did not.
func TestSettleAcrossMounts(t *testing.T) {
	s := newStack(t, settleLong())
	s.run(`echo a > a`)
	s.settles("a")
	require.Empty(t, s.Up.Drain(context.Background()))
	s.completed("a", []byte("a\n"))
	s.run(`echo b > b; echo more >> a`)
	s.settles("b")
	s.unmount() // without a drain, as a killed daemon
	s.mount()
	for _, name := range []string{"a", "b"} {
		s.eventually(name, "completed")
		s.sameAsFile(name)
	}
	require.ElementsMatch(t, []string{"a", "a", "b"}, s.fileNames())
}

// TestSettleBesideACommit: closes settle while a commit is under way as well.
func TestSettleBesideACommit(t *testing.T) {
	s := newStack(t, settleLong())
	complete := s.holdComplete(local.StageHead, false)
	s.run(`echo one > f`)
	require.NoError(t, s.Up.Retry("f"))
	<-complete.reached
	s.run(`for i in {1..20}; do echo $i >> f; done`)
	complete.open()
	require.Eventually(t, func() bool { return len(s.API.Files()) == 1 }, patience, time.Millisecond)
	require.Equal(t, "one\n", string(s.content(s.ids()[0])))
	require.Eventually(t, func() bool { return s.attr("f", "upload_id") == "" }, patience, time.Millisecond)
	s.settles("f")
	s.send("f")
	require.Len(t, s.API.Files(), 2)
}

// TestSettleIsForTheBackground: where close waits, it waits for nothing else than the
// File.
func TestSettleIsForTheBackground(t *testing.T) {
	o := settleLong()
	o.Background = false
	s := newStack(t, o)
	s.run(`echo one > f; echo two >> f; echo three > g.tmp; mv g.tmp g`)
	require.Len(t, s.ids(), 2, "each close has returned with its File")
	s.completed("f", []byte("one\ntwo\n"))
	s.eventually("g", "completed")
}
