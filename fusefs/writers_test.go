package fusefs_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// TestWritersOfOneFile: several programs append to one file at a time. Every File is
// a content that the file had at a close, of whole lines.
func TestWritersOfOneFile(t *testing.T) {
	s := newStack(t, stackOptions{})
	const line, writers, each = 5000, 4, 20
	s.run(fmt.Sprintf(`pids=; for w in $(seq %d); do
		for i in $(seq %d); do printf '%%%ds\n' $w.$i >> f || exit 1; done & pids+=" $!"
		done; for p in $pids; do wait $p || exit 1; done`, writers, each, line-1))
	content := s.read("f")
	require.Len(t, content, line*writers*each)
	s.completed("f", content)
	for _, f := range s.API.Files() {
		got := s.content(f.ID)
		require.Zero(t, len(got)%line, "every close saw whole lines")
		require.True(t, bytes.HasPrefix(content, got), "the file only ever grew")
	}
	require.Len(t, strings.Fields(string(content)), writers*each)
}

// TestWritersTakeTurns: several programs overwrite one file, each with another
// content. Every File is a content that a reader could have seen at a close.
func TestWritersTakeTurns(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`for i in 1 2 3 4 5 6; do
		flock lock bash -c 'head -c 1152K /dev/zero | tr "\0" $1 > f' bash $i & pids+=" $!"
		done; for p in $pids; do wait $p || exit 1; done; rm lock`)
	s.sameAsFile("f")
	require.Equal(t, int64(6), s.API.Stats().FilesCreated)
	for _, f := range s.API.Files() {
		got := s.content(f.ID)
		require.True(t, bytes.Equal(bytes.Repeat(got[:1], 9*partSize/8), got), "a mixture of two")
	}
}

// TestWriteDuringCommit blocks each step of a commit and changes the file meanwhile:
// through another descriptor, a mapping, and a rename over it. Every File is the
// content of a close, the last one that of the last close.
func TestWriteDuringCommit(t *testing.T) {
	const content = 100000 // bytes: two parts
	before, after := bytes.Repeat([]byte("1"), content), bytes.Repeat([]byte("2"), content)
	mixed := bytes.Clone(before)
	copy(mixed[100:], "edit")
	writes := []struct {
		how    string
		script string
		want   []byte
	}{
		{"overwrite", `with open("f", "r+b", 0) as f: f.write(b"2" * (100000))`, after},
		{"truncate", `with open("f", "wb", 0) as f: f.write(b"2" * (100000))`, after},
		{"edit", `with open("f", "r+b", 0) as f: f.seek(100); f.write(b"edit")`, mixed},
		{"mapping", `with open("f", "r+b") as f, mmap.mmap(f.fileno(), 0) as m: m[100:104] = b"edit"`, mixed},
		{"rename over", `with open("g", "wb", 0) as f: f.write(b"2" * (100000))
os.replace("g", "f")`, after},
	}
	ops := []local.Op{local.OpCreate, local.OpPart, local.OpComplete}
	for i, c := range writes {
		for j, op := range ops {
			if !sampled(i, j, len(writes), len(ops)) {
				continue
			}
			t.Run(fmt.Sprint(c.how, " during ", op), func(t *testing.T) {
				s := newStack(t, stackOptions{Part: 64 << 10})
				reached, open := blockCalls(s.API, op)
				first := s.start(`
with open("f", "wb", 0) as f: f.write(b"1" * (100000))
print("closed", flush=True)
`)
				<-reached
				// A reader sees the file's content, not what is being sent.
				require.True(t, bytes.Equal(before, s.read("f")))
				second := s.start("import mmap, os\nprint('ready', flush=True)\n" + c.script + "\nprint('closed', flush=True)\n")
				second.expect("ready")
				if c.how != "rename over" { // what it writes is there before it is sent
					require.Eventually(t, func() bool { return bytes.Equal(c.want, s.read("f")) }, patience, 10*time.Millisecond)
				}
				open()
				first.expect("closed")
				second.expect("closed")
				require.NoError(t, first.wait())
				require.NoError(t, second.wait())
				s.eventually("f", "completed")
				require.Eventually(t, func() bool {
					id := s.attr("f", "file_id")
					return id != "" && bytes.Equal(c.want, s.content(id))
				}, patience, 10*time.Millisecond)
				s.completed("f", c.want)
				for _, f := range s.API.Files() {
					got := s.content(f.ID)
					require.True(t, bytes.Equal(got, before) || bytes.Equal(got, c.want), "a mixture")
				}
				require.Eventually(t, func() bool { return s.pending() == 0 }, patience, 10*time.Millisecond)
			})
		}
	}
}
