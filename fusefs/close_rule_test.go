package fusefs_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

func TestCopyIsOneUploadOfWholeParts(t *testing.T) {
	var sent sentParts
	s := newStack(t, stackOptions{Wrap: sent.wrap})
	src, want := source(t, 5*partSize/2+123)
	for i, how := range []string{
		`cp "$1" f.bin`,
		`cat "$1" > f.bin`,
		`cat < "$1" > f.bin`,
		`dd if="$1" of=f.bin bs=64k status=none`,
		`cp --sparse=always "$1" f.bin`,
		`cp -a "$1" f.bin`,
		`install -m 600 "$1" f.bin`,
		`python3 -c 'import shutil,sys; shutil.copyfile(sys.argv[1], "f.bin")' "$1"`,
		`dd if="$1" bs=4k status=none | dd of=f.bin bs=3000 status=none`,
	} {
		t.Run(how, func(t *testing.T) {
			before := s.API.Stats()
			sent.begin()
			s.run("rm -f f.bin && "+how, src)
			s.completed("f.bin", want)
			after := s.API.Stats()
			require.Equal(t, int64(i+1), after.FilesCreated)
			require.Equal(t, before.UploadsCreated+1, after.UploadsCreated, "one Upload")
			require.Len(t, s.file(s.attr("f.bin", "file_id")).Parts, 3)
			sent.nothingTwice(t, 3)
		})
	}
}

// TestCopyLeavesEarly: the API has parts while the writer is still copying.
func TestCopyLeavesEarly(t *testing.T) {
	var sent sentParts
	sent.begin()
	s := newStack(t, stackOptions{Wrap: sent.wrap})
	src, want := source(t, 5*partSize)
	p := s.copyInTwo(src, "f.bin", 3*partSize)
	require.Eventually(t, func() bool { return s.attr("f.bin", "progress") == "3/5" }, patience, time.Millisecond,
		"three chunks are full and should be sent while the file is open")
	require.Equal(t, "writing", s.attr("f.bin", "state"))
	require.Len(t, strings.Split(s.attr("f.bin", "part_ids"), ","), 3)
	require.NotEmpty(t, s.attr("f.bin", "upload_id"))
	require.Equal(t, fmt.Sprint(3*partSize), s.attr("f.bin", "bytes_sent"))
	require.Empty(t, s.attr("f.bin", "file_id"))
	p.send("go on")
	require.NoError(t, p.wait())
	s.completed("f.bin", want)
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
	sent.nothingTwice(t, 5)
}

// copyInTwo starts a program that copies src. It pauses after the first bytes,
// of that number, until a line arrives on its input.
func (s *stack) copyInTwo(src, name string, first int64) *process {
	p := s.start(`
import os, sys
src = os.open(sys.argv[1], os.O_RDONLY)
dst = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
for i in range(int(sys.argv[3]) >> 17): os.write(dst, os.read(src, 1 << 17))
os.fsync(dst)
print("written", flush=True)
sys.stdin.readline()
while block := os.read(src, 1 << 17): os.write(dst, block)
os.close(dst)
`, src, name, fmt.Sprint(first))
	p.expect("written")
	return p
}

func TestSizeKnownAhead(t *testing.T) {
	for name, ahead := range map[string]string{
		"hint":      `os.setxattr("f.bin", "user.uploadfs.size_hint", b"2621440")`,
		"ftruncate": `os.ftruncate(dst, 20 << 17)`,
		"fallocate": `os.posix_fallocate(dst, 0, 20 << 17)`,
	} {
		t.Run(name, func(t *testing.T) {
			var sent sentParts
			sent.begin()
			s := newStack(t, stackOptions{Wrap: sent.wrap})
			p := s.start(`
import os, sys
dst = os.open("f.bin", os.O_WRONLY | os.O_CREAT)
` + ahead + `
for i in range(17): os.write(dst, os.urandom(1 << 17))
os.fsync(dst)
print("written", flush=True)
sys.stdin.readline()
for i in range(3): os.write(dst, os.urandom(1 << 17))
os.close(dst)
`)
			p.expect("written")
			require.Eventually(t, func() bool { return s.attr("f.bin", "progress") == "2/3" }, patience, time.Millisecond)
			p.send("go on")
			require.NoError(t, p.wait())
			s.sameAsFile("f.bin")
			require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
			require.Len(t, s.file(s.attr("f.bin", "file_id")).Parts, 3)
			sent.nothingTwice(t, 3)
		})
	}
}

// TestWrongPrediction writes less, more and other bytes than were predicted.
func TestWrongPrediction(t *testing.T) {
	src, want := source(t, 5*partSize)
	for name, c := range map[string]struct {
		script string
		want   func() []byte
	}{
		"head":        {`head -c 2560K "$1" > f.bin`, func() []byte { return want[:5*partSize/2] }},
		"dd count":    {`dd if="$1" of=f.bin bs=128K count=17 status=none`, func() []byte { return want[:17*partSize/8] }},
		"cat twice":   {`cat "$1" "$1" > f.bin`, func() []byte { return append(append([]byte{}, want...), want...) }},
		"hint":        {`: > f.bin; setfattr -n user.uploadfs.size_hint -v 3750000 f.bin; cp "$1" f.bin`, func() []byte { return want }},
		"edited head": {`cp "$1" f.bin; printf HEAD | dd of=f.bin conv=notrunc status=none`, func() []byte { return append([]byte("HEAD"), want[4:]...) }},
		"sparse":      {`truncate -s 3840K f.bin; printf END | dd of=f.bin bs=1 seek=2500000 conv=notrunc status=none`, func() []byte { b := make([]byte, 30*partSize/8); copy(b[2500000:], "END"); return b }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			s.run(c.script, src)
			s.completed("f.bin", c.want())
			pending := 0
			for _, u := range s.API.Uploads() {
				if u.Status == "pending" {
					pending++
				}
			}
			require.Eventually(t, func() bool { return s.pending() == 0 }, patience, 5*time.Millisecond,
				"an Upload that is given up is cancelled (%d pending)", pending)
		})
	}
	t.Run("gzip", func(t *testing.T) {
		s := newStack(t, stackOptions{})
		s.run(`gzip -c "$1" > f.gz; gzip -dc f.gz | cmp - "$1"`, src)
		s.sameAsFile("f.gz")
		require.Equal(t, int64(1), s.API.Stats().UploadsCreated, "what gzip writes is not what it reads")
	})
	t.Run("tar", func(t *testing.T) {
		s := newStack(t, stackOptions{})
		s.run(`tar cf f.tar -P "$1"`, src)
		s.sameAsFile("f.tar")
		require.Equal(t, int64(1), s.API.Stats().UploadsCreated, "an archive is not its member")
	})
}

func TestDuplicateClosedBeforeTheFirstByte(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`echo x > f`)
	s.completed("f", []byte("x\n"))
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
}

func TestChildrenOfOneRedirectionAreOneUpload(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`{ echo a; ls -d .; echo b; } > f`)
	s.completed("f", []byte("a\n.\nb\n"))
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
}

func TestShellDescriptorIsOneUpload(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`exec 3>f; echo a >&3; echo b >&3; getfattr --only-values -n user.uploadfs.state f | grep -qx writing; exec 3>&-`)
	s.completed("f", []byte("a\nb\n"))
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
}

func TestChildOutlivesItsParent(t *testing.T) {
	s := newStack(t, stackOptions{})
	// The child writes after its parent has ended: its read from the FIFO ends
	// when the shell writes to it.
	s.run(`mkfifo go; bash -c '{ read line < go; echo child; } > f & exec >&-'; echo > go
		while [ "$(getfattr --only-values -n user.uploadfs.state f)" != completed ]; do :; done`)
	s.completed("f", []byte("child\n"))
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
}

func TestExitWithoutClose(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`python3 -c 'import os; fd = os.open("f", os.O_WRONLY|os.O_CREAT); os.write(fd, b"whole"); os._exit(0)'`)
	s.completed("f", []byte("whole"))

	_, err := s.sh(`python3 -c 'import os; fd = os.open("g", os.O_WRONLY|os.O_CREAT); os.write(fd, b"failed"); os._exit(3)'`)
	require.Equal(t, 3, exitStatus(err))
	s.eventually("g", "completed")
	s.completed("g", []byte("failed"))
}

func TestAppendLaterAndOverwriteLater(t *testing.T) {
	s := newStack(t, stackOptions{})
	src, want := source(t, 5*partSize/2)
	s.run(`cp "$1" f.bin`, src)
	first := s.attr("f.bin", "file_id")
	s.run(`echo more >> f.bin`)
	want = append(want, "more\n"...)
	s.completed("f.bin", want)
	require.NotEqual(t, first, s.attr("f.bin", "file_id"))
	require.Contains(t, s.attr("f.bin", "info"), first, "the superseded File is still known")

	s.run(`printf XX | dd of=f.bin bs=1 seek=1500000 conv=notrunc status=none`)
	copy(want[1500000:], "XX")
	s.completed("f.bin", want)
	s.run(`cp "$1" f.bin; cmp "$1" f.bin`, src)
	s.sameAsFile("f.bin")
	require.Equal(t, int64(4), s.API.Stats().FilesCreated, "no File is ever deleted")
}

func TestReadingAndTouchingUploadNothing(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`echo x > f`)
	s.run(`cat f; touch f; chmod 600 f; exec 3<>f; exec 3>&-; exec 3>>f; exec 3>&-; ln f g; mv f h; sync f 2>/dev/null; cat g`)
	s.completed("h", []byte("x\n"))
	s.completed("g", []byte("x\n"))
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
}

func TestFirstChangedByteTakesTheResultsAway(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`echo x > f`)
	p := s.start(`
import os, sys
f = os.open("f", os.O_WRONLY | os.O_APPEND)
os.write(f, b"more")
os.fsync(f)
print("written", flush=True)
sys.stdin.readline()
`)
	p.expect("written")
	require.Equal(t, "writing", s.attr("f", "state"))
	for _, a := range []string{"file_id", "md5", "upload_id", "part_ids", "progress", "bytes_sent", "part.0"} {
		require.Empty(t, s.attr("f", a), a)
	}
	p.send("exit")
	require.NoError(t, p.wait())
	s.completed("f", []byte("x\nmore"))
}

func TestKilledWriterIsInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			s := newStack(t, stackOptions{})
			p := s.start(`
import os, sys, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
f = os.open("f", os.O_WRONLY | os.O_CREAT)
for i in range(20): os.write(f, os.urandom(1 << 17))
print("written", flush=True)
sys.stdin.readline()
`)
			p.expect("written")
			require.NoError(t, p.cmd.Process.Signal(signal))
			require.Error(t, p.wait(), "it ends at once")
			require.Equal(t, "interrupted", s.attr("f", "state"))
			require.NotEmpty(t, s.attr("f", "error"))
			require.Zero(t, s.API.Stats().FilesCreated)
			require.Len(t, s.read("f"), 5*partSize/2, "everything written is kept")

			s.run(`printf end >> f`) // the next successful close
			s.sameAsFile("f")
		})
	}
}

func TestRetrySendsAnInterruptedFileAsItIs(t *testing.T) {
	s := newStack(t, stackOptions{})
	_, err := s.sh(`python3 -c 'import os; f = os.open("f", os.O_WRONLY|os.O_CREAT); os.write(f, b"half"); os.kill(os.getpid(), 9)'`)
	require.Error(t, err)
	require.Equal(t, "interrupted", s.attr("f", "state"))
	require.NoError(t, s.Up.Retry("f"))
	s.eventually("f", "completed")
	s.completed("f", []byte("half"))
	require.Error(t, s.Up.Retry("f"), "nothing to retry")
}

// TestSignalWhileCloseWaits blocks the API, so that close waits.
func TestSignalWhileCloseWaits(t *testing.T) {
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		ends bool
	}{{"INT", syscall.SIGINT, true}, {"KILL", syscall.SIGKILL, true}, {"TERM", syscall.SIGTERM, true}, {"USR1 with a handler", syscall.SIGUSR1, false}} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			gate, open := blockCalls(s.API, local.OpComplete)
			p := s.start(`
import os, sys, signal
signal.signal(signal.SIGUSR1, lambda *a: None)
signal.signal(signal.SIGINT, signal.SIG_DFL)
f = os.open("f", os.O_WRONLY | os.O_CREAT)
os.write(f, b"content")
os.close(f)
print("closed", flush=True)
`)
			<-gate
			require.NoError(t, p.cmd.Process.Signal(c.sig))
			if c.ends {
				require.Error(t, p.wait())
				require.Equal(t, "uploading", s.attr("f", "state"), "the upload goes on")
				open()
			} else {
				// The first signal interrupts the request. Only by the
				// process's signals the daemon knows that it goes on.
				require.NoError(t, p.cmd.Process.Signal(c.sig))
				open()
				p.expect("closed")
				require.NoError(t, p.wait())
			}
			s.eventually("f", "completed")
			s.completed("f", []byte("content"))
			require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
		})
	}
}

func TestRefusalIsTheErrorOfClose(t *testing.T) {
	refusals := []struct {
		status int
		code   string
		errno  string
	}{
		{401, "invalid_api_key", "Permission denied"},
		{403, "", "Permission denied"},
		{429, "insufficient_quota", "Disk quota exceeded"},
		{413, "", "File too large"},
		{400, "", "Invalid argument"},
	}
	ops := []local.Op{local.OpCreate, local.OpPart, local.OpComplete}
	for i, c := range refusals {
		for j, op := range ops {
			if !sampled(i, j, len(refusals), len(ops)) {
				continue
			}
			t.Run(fmt.Sprint(op, c.status), func(t *testing.T) {
				s := newStack(t, stackOptions{})
				src, want := source(t, 9*partSize/8)
				s.API.SetIntercept(func(p local.Point) *local.Fault {
					if p.Op == op && p.Stage == local.StageHead {
						return &local.Fault{Status: c.status, Code: c.code, Message: "the API's own words"}
					}
					return nil
				})
				out, err := s.sh(`cp "$1" f.bin`, src)
				require.Equal(t, 1, exitStatus(err), out)
				require.Contains(t, out, c.errno)
				require.Equal(t, "failed", s.attr("f.bin", "state"))
				require.Contains(t, s.attr("f.bin", "error"), "the API's own words")
				require.True(t, bytes.Equal(want, s.read("f.bin")), "the file is still there")

				s.API.SetIntercept(nil)
				require.NoError(t, s.Up.Retry("f.bin"))
				s.eventually("f.bin", "completed")
				s.completed("f.bin", want)
			})
		}
	}
}

func TestCloseTimeout(t *testing.T) {
	s := newStack(t, stackOptions{Timeout: 50 * time.Millisecond})
	_, open := blockCalls(s.API, local.OpCreate)
	out, err := s.sh(`python3 -c '
import os
f = os.open("f", os.O_WRONLY|os.O_CREAT)
os.write(f, b"slow")
os.close(f)'`)
	require.Error(t, err)
	require.Contains(t, out, "Connection timed out")
	require.Equal(t, "uploading", s.attr("f", "state"))
	open()
	s.eventually("f", "completed")
	s.completed("f", []byte("slow"))
}

func TestCloseInTheBackground(t *testing.T) {
	s := newStack(t, stackOptions{Background: true})
	_, open := blockCalls(s.API, local.OpCreate)
	s.run(`echo x > f`)
	require.Equal(t, "uploading", s.attr("f", "state"))
	open()
	s.eventually("f", "completed")
}

// pending counts the Uploads that could still take parts.
func (s *stack) pending() (n int) {
	for _, u := range s.API.Uploads() {
		if u.Status == "pending" {
			n++
		}
	}
	return n
}

// read returns what the file holds in the mount.
func (s *stack) read(name string) []byte {
	s.t.Helper()
	// By another process: a server that dies with a descriptor on its own
	// mount would wait for itself.
	b, err := exec.Command("cat", s.path(name)).Output()
	require.NoError(s.t, err)
	return b
}

// blockCalls makes every call of an operation wait, see block.
func blockCalls(api *local.Server, op local.Op) (reached <-chan struct{}, open func()) {
	return block(api, func(p local.Point) bool { return p.Op == op })
}

// block makes every call that matches wait before its body is read. reached gets one
// value for each; open lets these calls and all later ones go on.
func block(api *local.Server, matches func(local.Point) bool) (reached <-chan struct{}, open func()) {
	held, gate := make(chan struct{}, 1000), make(chan struct{})
	api.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage == local.StageHead && matches(p) {
			held <- struct{}{}
			select {
			case <-gate:
			case <-p.Request.Context().Done():
			}
		}
		return nil
	})
	return held, sync.OnceFunc(func() { close(gate) })
}

// process is a Python program in the mount, with pipes for its input and output.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  *os.File
	out *os.File
}

// start runs a Python script in the mount. Without site packages (-S) Python starts in
// half the time, and there are hundreds of starts.
func (s *stack) start(script string, args ...string) *process {
	s.t.Helper()
	cmd := exec.Command("bash", append([]string{"-c", `cd "$MNT" && exec python3 -S -c "$SCRIPT" "$@"`, "bash"}, args...)...)
	cmd.Env = append(os.Environ(), "MNT="+s.Dir, "HOME="+s.State, "SCRIPT="+script)
	inR, inW, err := os.Pipe()
	require.NoError(s.t, err)
	outR, outW, err := os.Pipe()
	require.NoError(s.t, err)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
	require.NoError(s.t, cmd.Start())
	inR.Close()
	outW.Close()
	p := &process{s.t, cmd, inW, outR}
	s.t.Cleanup(func() {
		inW.Close()
		outR.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return p
}

// expect waits for a line.
func (p *process) expect(line string) {
	p.t.Helper()
	require.NoError(p.t, p.out.SetReadDeadline(time.Now().Add(patience)))
	var got []byte
	for b := make([]byte, 1); !bytes.HasSuffix(got, []byte("\n")); {
		_, err := p.out.Read(b)
		require.NoError(p.t, err)
		got = append(got, b...)
	}
	require.Equal(p.t, line, strings.TrimSpace(string(got)))
}

func (p *process) send(line string) {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, line)
	require.NoError(p.t, err)
}

func (p *process) wait() error { return p.cmd.Wait() }
