package fusefs_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// slow makes each of the three calls of a small commit take so long.
func (s *stack) slow(call time.Duration) {
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage == local.StageHead && slices.Contains([]local.Op{local.OpCreate, local.OpPart, local.OpComplete}, p.Op) {
			return &local.Fault{Delay: call}
		}
		return nil
	})
}

// ended counts the Uploads that came to this end.
func (s *stack) ended(status string) (n int) {
	for _, u := range s.API.Uploads() {
		if u.Status == status {
			n++
		}
	}
	return n
}

// prefixes checks that each File is the beginning of content, of whole lines.
func (s *stack) prefixes(content []byte) {
	s.t.Helper()
	for _, f := range s.API.Files() {
		got := s.content(f.ID)
		require.True(s.t, bytes.HasPrefix(content, got), "%s is no beginning of the file", f.ID)
		require.True(s.t, bytes.HasSuffix(got, []byte("\n")), "%s ends within a line", f.ID)
	}
}

// TestCloseBesideALogger: a program keeps the file open and appends to it faster than
// a commit ends. Each close of another program returns, with its line at the API.
func TestCloseBesideALogger(t *testing.T) {
	for name, size := range map[string]int{"small": 0, "two parts": 10 * partSize / 8} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, stackOptions{Timeout: 20 * time.Second})
			if size > 0 {
				s.run(fmt.Sprintf(`{ head -c %d /dev/zero | tr '\0' x; echo; } > f`, size))
			}
			s.slow(150 * time.Millisecond)
			logger := s.start(`
import os, select, sys
f = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("open", flush=True)
while True:
    os.write(f, b"a line of the logger\n")
    os.fsync(f) # in write-back the daemon hears of it now
    if select.select([sys.stdin], [], [], 0.1)[0]: break
os.close(f)
`)
			logger.expect("open")
			before := len(s.ids())
			const closes = 6
			for i := range closes {
				line := fmt.Sprintf("close %d", i)
				s.run(`echo "$1" >> f`, line)
				require.True(t, slices.ContainsFunc(s.ids(), func(id string) bool {
					return bytes.Contains(s.content(id), []byte(line+"\n"))
				}), "the close has returned, and no File has its line")
			}
			require.LessOrEqual(t, len(s.ids())-before, closes, "no File but for closes")
			logger.send("end")
			require.NoError(t, logger.wait())
			s.sameAsFile("f")
			s.prefixes(s.read("f"))
			require.LessOrEqual(t, s.ended("cancelled"), 1, "what can be finished is not cancelled")
			require.Contains(t, s.attr("f", "info"), s.ids()[before], "a superseded File is known")
		})
	}
}

// TestClosesShareCommits: programs append to one file, four while each commit is under
// way. Every close returns, and those that wait share the next commit.
func TestClosesShareCommits(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.slow(200 * time.Millisecond)
	const closes = 60
	s.run(fmt.Sprintf(`pids=; for i in $(seq %d); do
		{ echo $i >> f || exit 1; } & pids+=" $!"; sleep 0.15
		done; for p in $pids; do wait $p || exit 1; done`, closes))
	content := s.read("f")
	require.Len(t, bytes.Fields(content), closes)
	s.completed("f", content)
	s.prefixes(content)
	require.LessOrEqual(t, s.ended("cancelled"), 3, "what can be finished is not cancelled")
	require.LessOrEqual(t, len(s.ids()), closes*2/3, "closes that wait share one commit")
	require.GreaterOrEqual(t, len(s.ids()), closes/20, "closes do not wait for the last one")
}

// TestCloseBesideAKilledWriter: a program that appends is killed while another's close
// waits. The half that it has left is not the other's.
func TestCloseBesideAKilledWriter(t *testing.T) {
	s := newStack(t, stackOptions{})
	reached, open := blockCalls(s.API, local.OpPart)
	first := s.start(writeF)
	<-reached
	second := s.start(`
import os, sys
f = os.open("f", os.O_WRONLY | os.O_APPEND)
os.write(f, b"half a li")
print("written", flush=True)
sys.stdin.readline()
`)
	second.expect("written")
	require.NoError(t, second.cmd.Process.Kill())
	require.Error(t, second.wait())
	s.eventually("f", "interrupted")
	open()
	first.expect("closed")
	require.NoError(t, first.wait(), "its content is whole")
	require.Len(t, s.ids(), 1)
	require.Equal(t, strings.Repeat("1", 100000), string(s.content(s.ids()[0])))
	require.Equal(t, "interrupted", s.attr("f", "state"))
	require.Contains(t, s.attr("f", "info"), s.ids()[0])
}

// TestWhatSupersedesACommit changes a file whose content is being sent. A change below
// the size at the close supersedes it; one beyond leaves the content what it was.
func TestWhatSupersedesACommit(t *testing.T) {
	const size = 100000
	before := strings.Repeat("1", size)
	cases := map[string]struct {
		script     string
		supersedes bool
	}{
		"append":                       {`with open("f", "ab", 0) as f: f.write(b"2" * 1000)`, false},
		"append twice":                 {`with open("f", "ab", 0) as f: f.write(b"2" * 1000); f.write(b"3" * 70000)`, false},
		"extend":                       {`os.truncate("f", 200000)`, false},
		"extend with space":            {`f = os.open("f", os.O_WRONLY); os.posix_fallocate(f, 100000, 50000); os.close(f)`, false},
		"write beyond a hole":          {`f = os.open("f", os.O_WRONLY); os.pwrite(f, b"2", 150000); os.close(f)`, false},
		"copy to the end":              {`f = os.open("f", os.O_RDWR); os.copy_file_range(f, f, 1000, 0, 100000); os.close(f)`, false},
		"append and shorten":           {`f = os.open("f", os.O_WRONLY | os.O_APPEND); os.write(f, b"2" * 50000); os.ftruncate(f, 120000); os.close(f)`, false},
		"overwrite":                    {`f = os.open("f", os.O_WRONLY); os.pwrite(f, b"2", 5); os.close(f)`, true},
		"overwrite the last byte":      {`f = os.open("f", os.O_WRONLY); os.pwrite(f, b"2", 99999); os.close(f)`, true},
		"overwrite across the end":     {`f = os.open("f", os.O_WRONLY); os.pwrite(f, b"22", 99999); os.close(f)`, true},
		"truncate":                     {`os.truncate("f", 99999); f = os.open("f", os.O_WRONLY); os.pwrite(f, b"2", 7); os.close(f)`, true},
		"truncate and write to beyond": {`f = os.open("f", os.O_WRONLY | os.O_TRUNC); os.write(f, b"2" * 150000); os.close(f)`, true},
	}
	ops := []local.Op{local.OpCreate, local.OpPart}
	for i, how := range slices.Sorted(maps.Keys(cases)) {
		c := cases[how]
		for j, op := range ops {
			if !sampled(i, j, len(cases), len(ops)) {
				continue
			}
			t.Run(fmt.Sprint(how, " during ", op), func(t *testing.T) {
				s := newStack(t, stackOptions{Part: 64 << 10})
				reached, open := blockCalls(s.API, op)
				first := s.start(`
with open("f", "wb", 0) as f: f.write(b"1" * (100000))
print("closed", flush=True)
`)
				<-reached
				second := s.start("import os\n" + c.script + "\nprint('closed', flush=True)\n")
				require.Eventually(t, func() bool { return s.changedSince(t, "f", "1") }, 30*time.Second, 5*time.Millisecond)
				open()
				first.expect("closed")
				second.expect("closed")
				require.NoError(t, first.wait())
				require.NoError(t, second.wait())
				s.eventually("f", "completed")
				after := s.read("f")
				s.completed("f", after)
				want := []string{before, string(after)}
				if c.supersedes {
					want = want[1:]
				}
				ids := s.ids()
				if c.supersedes && op == local.OpPart && len(ids) == 2 {
					// Each part had been read before the change.
					require.True(t, string(s.content(ids[0])) == before, "a mixture")
					ids = ids[1:]
				}
				require.Len(t, ids, len(want))
				for i, id := range ids {
					require.True(t, string(s.content(id)) == want[i], "File %d is not the content of its close", i)
				}
				if !c.supersedes {
					require.Zero(t, s.ended("cancelled"))
					require.Contains(t, s.attr("f", "info"), s.ids()[0])
				}
			})
		}
	}
}
