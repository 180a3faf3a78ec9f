package fusefs_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/local"
)

// TestToolFinalName: a file written under a temporary name is sent once, after the
// rename, under its final name.
func TestToolFinalName(t *testing.T) {
	s := newStack(t, stackOptions{Names: uploader.NamePolicy{HoldFor: time.Hour}})
	small := smallFiles(t)
	for name, do := range map[string]string{
		"rsync":     `rsync "$1" f.txt`,
		"rsync -aX": `rsync -aX "$1" f.txt`,
		"sed -i":    `sed -i s/line/row/ f.txt`,
		"vim":       `vim -Nu NONE -es -c 'set writebackup' -c '%s/line/row/' -c wq f.txt < /dev/null`,
		"tempfile and os.replace": `python3 -c '
import os, tempfile
with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as f: f.write("text")
os.replace(f.name, "f.txt")'`,
		"a suffix and os.replace": `python3 -c '
import os
with open("f.txt.tmp", "w") as f: f.write("text"); f.flush(); os.fsync(f.fileno())
os.replace("f.txt.tmp", "f.txt")'`,
		"O_TMPFILE and linkat": `rm f.txt; python3 -c '
import os
f = os.open(".", os.O_TMPFILE | os.O_WRONLY); os.write(f, b"text")
os.link(str(f), "f.txt", src_dir_fd=os.open("/proc/self/fd", os.O_RDONLY)); os.close(f)'`,
		"a browser":               `cp "$1" f.txt.crdownload; mv f.txt.crdownload f.txt`,
		"a link for the new name": `cp "$1" f.part; rm f.txt; ln f.part f.txt; rm f.part`,
		"sqlite":                  `rm f.txt; sqlite3 f.txt 'create table t(a)' 'insert into t values(1)' 'insert into t values(2)'`,
		"python's scratch file": `echo x > f.txt; python3 -c '
import tempfile
with tempfile.NamedTemporaryFile(dir=".") as f: f.write(b"scratch")'`,
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			s.run(`rm -f f.txt; cp "$1" f.txt`, small+"/a.txt")
			before := s.API.Stats()
			s.run("set -e; "+do, small+"/b.jsonl")
			s.eventually("f.txt", "completed")
			s.sameAsFile("f.txt")
			require.Equal(t, before.UploadsCreated+1, s.API.Stats().UploadsCreated)
			require.Equal(t, before.FilesCreated+1, s.API.Stats().FilesCreated)
			for _, u := range s.API.Uploads() {
				require.Equal(t, "f.txt", u.Filename)
			}
			require.Equal(t, "f.txt", s.run("ls -A"), "nothing else is left")
		})
	}
}

func TestToolHoldAndExclude(t *testing.T) {
	s := newStack(t, stackOptions{Names: uploader.NamePolicy{
		Hold: []string{"*.draft", "inbox/*"}, Exclude: []string{"*.log", "cache/*"}, HoldFor: time.Hour,
	}})
	s.run(`mkdir inbox cache; for f in a.draft a.tmp inbox/b a.log cache/c.draft; do echo $f > $f; done`)
	for name, state := range map[string]string{
		"a.draft": "held", "a.tmp": "held", "inbox/b": "held", "a.log": "excluded", "cache/c.draft": "excluded",
	} {
		require.Equal(t, state, s.attr(name, "state"), name)
		require.Empty(t, s.attr(name, "upload_id"))
	}
	require.Zero(t, s.API.Stats().UploadsCreated)

	// A rename between two held names sends nothing, one to another name does.
	s.run(`mv a.draft a.part; mv a.tmp a.tmp.log; mv cache/c.draft c.draft`)
	require.Equal(t, "held", s.attr("a.part", "state"))
	require.Equal(t, "excluded", s.attr("a.tmp.log", "state"))
	require.Equal(t, "held", s.attr("c.draft", "state"))
	require.Zero(t, s.API.Stats().UploadsCreated)
	s.run(`mv a.part a; mv inbox/b b; mv a.log l; mv c.draft c`)
	for name, content := range map[string]string{"a": "a.draft\n", "b": "inbox/b\n", "l": "a.log\n", "c": "cache/c.draft\n"} {
		s.eventually(name, "completed")
		s.completed(name, []byte(content))
	}
	// A rename to a held name does not take an existing File away.
	s.run(`mv a a.tmp; mv b cache/b`)
	s.completed("a.tmp", []byte("a.draft\n"))
	s.completed("cache/b", []byte("inbox/b\n"))
	require.Equal(t, int64(4), s.API.Stats().UploadsCreated)
}

func TestToolHoldForEnds(t *testing.T) {
	s := newStack(t, stackOptions{Names: uploader.NamePolicy{HoldFor: 20 * time.Millisecond}})
	s.run(`echo forgotten > f.tmp; echo a > g.part; echo b >> g.part`)
	for name, content := range map[string]string{"f.tmp": "forgotten\n", "g.part": "a\nb\n"} {
		s.eventually(name, "completed")
		s.completed(name, []byte(content))
	}

	s.opts.Names.HoldFor = time.Hour
	s.unmount()
	s.mount()
	s.run(`echo kept > h.tmp`)
	require.Equal(t, "held", s.attr("h.tmp", "state"))
	s.opts.Names.HoldFor = 20 * time.Millisecond
	s.unmount()
	s.mount() // the next mount knows it too
	s.eventually("h.tmp", "completed")
	s.completed("h.tmp", []byte("kept\n"))
}

func TestToolNoHold(t *testing.T) {
	s := newStack(t, stackOptions{Names: uploader.NamePolicy{NoHold: true, HoldFor: time.Hour}})
	s.run(`echo x > f.tmp`)
	s.completed("f.tmp", []byte("x\n"))
	s.run(`mv f.tmp f`)
	s.completed("f", []byte("x\n"))
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
}

// TestExcludeOfTheNextMount: each mount's own flags say what is held and excluded.
func TestExcludeOfTheNextMount(t *testing.T) {
	s := newStack(t, stackOptions{Background: true, Names: uploader.NamePolicy{Exclude: []string{"*.log"}, HoldFor: time.Hour}})
	s.run(`echo log > a.log; echo log > b.log; echo tmp > c.tmp; echo done > d.dat`)
	s.eventually("d.dat", "completed")
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageHead {
			return &local.Fault{Status: 503, Message: "later"}
		}
		return nil
	})
	s.run(`echo data > e.dat`)
	s.eventually("e.dat", "retrying")
	require.Equal(t, 1, s.pending())

	s.opts.Names.Exclude = []string{"b.*", "*.tmp", "*.dat"}
	s.unmount()
	s.API.SetIntercept(nil)
	s.mount()
	s.eventually("a.log", "completed")
	s.completed("a.log", []byte("log\n"))
	for _, name := range []string{"b.log", "c.tmp", "e.dat"} {
		require.Equal(t, "excluded", s.attr(name, "state"), name)
	}
	s.completed("d.dat", []byte("done\n"))
	require.Eventually(t, func() bool { return s.pending() == 0 }, patience, time.Millisecond, "the Upload of e.dat is cancelled")
	require.Len(t, s.API.Files(), 2)
}
