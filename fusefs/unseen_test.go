//go:build linux

package fusefs_test

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
	"uploadfs/uploader/api/local"
)

// unseenKinds are the ways in which programs that write escape the daemon's sight, as
// a script that runs the tests in a mount namespace of their own: $1 is a fuse.conf
// with user_allow_other, $2 the tests, and the rest are their arguments. Mounts of others
// are to end there too (--propagation=slave), or they would not end before the namespace.
var unseenKinds = map[string]string{
	"another user": `mount --bind "$1" /etc/fuse.conf; shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"`,
	"hidepid": `mount --bind "$1" /etc/fuse.conf; shift; mount -t proc -o hidepid=2 proc /proc
		exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"`,
	"PID namespace": `shift; exec unshare -pf --mount-proc --propagation=slave "$@"`,
}

// TestUnseenWriters runs the tests below where the daemon cannot look at the programs
// that write. Those are started by this process, as the user daemon.
func TestUnseenWriters(t *testing.T) {
	if !isRoot() || os.Getenv("FUSEFS_TEST_UNSEEN") != "" {
		t.Skip("only root can have programs of two users")
	}
	for kind, script := range unseenKinds {
		t.Run(kind, func(t *testing.T) {
			dir := tempDir(t)
			require.NoError(t, os.Chmod(dir, 0o777))
			program, err := os.ReadFile("/proc/self/exe")
			require.NoError(t, err)
			tests, conf, socket := join(dir, "tests"), join(dir, "fuse.conf"), join(dir, "socket")
			require.NoError(t, os.WriteFile(tests, program, 0o755))
			write(t, conf, "user_allow_other\n")
			l, err := net.Listen("unix", socket)
			require.NoError(t, err)
			require.NoError(t, os.Chmod(socket, 0o777))
			defer l.Close()

			cmd := exec.Command("unshare", "-m", "--propagation=slave", "bash", "-ec", script, "bash", conf, tests,
				"-test.timeout=5m", "-test.v", "-test.run=^TestUnseen")
			cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir, "FUSEFS_TEST_UNSEEN="+kind, "FUSEFS_TEST_SOCKET="+socket)
			if kind != "PID namespace" {
				cmd.Env = append(cmd.Env, "UPLOADFS_TEST_WRITE_PATH=") // an ordinary user has one only
			}
			cmd.Dir = "/"
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			cmd.Stderr = cmd.Stdout
			require.NoError(t, cmd.Start())
			go serveScripts(l, cmd.Process.Pid)
			var ran int
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				t.Log(lines.Text())
				if strings.HasPrefix(lines.Text(), "--- PASS: TestUnseen") {
					ran++
				}
			}
			require.NoError(t, cmd.Wait())
			require.GreaterOrEqual(t, ran, 5, "the tests below ran")
		})
	}
}

// script is a shell script for another program to run, and its outcome.
type script struct {
	Script, Dir string
	Out         string
	Status      int
}

// serveScripts runs the scripts that arrive on the socket, in the mount namespace of
// the process pid, but in the PID namespace of this one.
func serveScripts(l net.Listener, pid int) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			var s script
			if json.NewDecoder(conn).Decode(&s) != nil {
				return
			}
			cmd := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-m", "setpriv", "--reuid=1", "--regid=1", "--clear-groups",
				"bash", "-c", `ulimit -c 0; cd "$1" && eval "$2"`, "bash", s.Dir, s.Script)
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			out, err := cmd.CombinedOutput()
			s.Out, s.Status = string(out), exitStatus(err)
			_ = json.NewEncoder(conn).Encode(s) // the other side may be gone
		}()
	}
}

// unseenStack is a stack whose writers the daemon cannot see.
type unseenStack struct {
	*stack
	kind string
}

func newUnseenStack(t *testing.T, o stackOptions) *unseenStack {
	t.Helper()
	kind := os.Getenv("FUSEFS_TEST_UNSEEN")
	if kind == "" {
		t.Skip("TestUnseenWriters runs it")
	}
	o.Options = []string{"allow_other"}
	s := &unseenStack{newStack(t, o), kind}
	for dir := s.Dir; dir != os.Getenv("TMPDIR"); dir = join(dir, "..") {
		if os.Chmod(dir, 0o777) != nil {
			break
		}
	}
	return s
}

// unseen runs a script as another program, and returns what it wrote.
func (s *unseenStack) unseen(text string) (out string, status int) {
	s.t.Helper()
	conn, err := net.Dial("unix", os.Getenv("FUSEFS_TEST_SOCKET"))
	require.NoError(s.t, err)
	defer conn.Close()
	require.NoError(s.t, json.NewEncoder(conn).Encode(script{Script: text, Dir: s.Dir}))
	require.NoError(s.t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	var r script
	require.NoError(s.t, json.NewDecoder(conn).Decode(&r))
	return r.Out, r.Status
}

// tellsExits reports whether the daemon can find out how its writers end.
func (s *unseenStack) tellsExits() bool { return s.kind != "PID namespace" && procfs.TellsExitStatus() }

// settled waits until the file has no writer and nothing is on its way.
func (s *unseenStack) settled(name string) string {
	s.t.Helper()
	var state string
	require.Eventually(s.t, func() bool {
		state = s.attr(name, "state")
		return state != "writing" && state != "uploading"
	}, 30*time.Second, 5*time.Millisecond, "%s is %s", name, state)
	return state
}

// TestUnseenDuplicatesAreOneUpload: each close of a duplicate looks like the last one.
func TestUnseenDuplicatesAreOneUpload(t *testing.T) {
	s := newUnseenStack(t, stackOptions{})
	for i, c := range []struct{ script, want string }{
		{`{ echo a; echo err >&2; ls -d .; echo b; } > f0 2>&1`, "a\nerr\n.\nb\n"},
		{`exec 3>f1; echo a >&3; echo b >&3; exec 3>&-`, "a\nb\n"},
		{`python3 -c '
import os
a = os.open("f2", os.O_WRONLY | os.O_CREAT, 0o644); b = os.dup(a)
os.write(a, b"1"); os.close(a); os.write(b, b"2"); os.close(b)'`, "12"},
		{`(echo x; sleep 0.1 & wait) > f3`, "x\n"},
	} {
		out, status := s.unseen(c.script)
		require.Zero(t, status, out)
		name := "f" + strconv.Itoa(i)
		s.eventually(name, "completed")
		s.completed(name, []byte(c.want))
		require.Equal(t, int64(i+1), s.API.Stats().UploadsCreated, c.script)
	}
}

// TestUnseenWriterIsKilled: how a writer ended is known when it has been waited for.
func TestUnseenWriterIsKilled(t *testing.T) {
	s := newUnseenStack(t, stackOptions{})
	if !s.tellsExits() {
		t.Skip("cannot be known at all")
	}
	for i, sig := range []string{"TERM", "INT", "SEGV", "KILL", "HUP"} {
		name := "f" + sig
		out, status := s.unseen(`python3 -c '
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
f = os.open("` + name + `", os.O_WRONLY | os.O_CREAT, 0o644)
os.write(f, b"half"); os.kill(os.getpid(), signal.SIG` + sig + `)'`)
		require.NotZero(t, status, out)
		require.Equal(t, "interrupted", s.settled(name), sig)
		require.Zero(t, s.API.Stats().FilesCreated, i)
	}
	// In a process of many threads a crash looks like exit(0) while it lasts.
	_, status := s.unseen(`python3 -c '
import os, signal, threading
f = os.open("threads", os.O_WRONLY | os.O_CREAT, 0o644); os.write(f, b"half")
threading.Thread(target=threading.Event().wait, daemon=True).start()
os.kill(os.getpid(), signal.SIGSEGV)'`)
	require.NotZero(t, status)
	require.Equal(t, "interrupted", s.settled("threads"))
	require.Zero(t, s.API.Stats().FilesCreated)
}

// TestUnseenWriterExits: an exit without a signal leaves a whole file.
func TestUnseenWriterExits(t *testing.T) {
	s := newUnseenStack(t, stackOptions{})
	for name, code := range map[string]string{"zero": "0", "three": "3"} {
		s.unseen(`python3 -c 'import os; f = os.open("` + name + `", os.O_WRONLY|os.O_CREAT, 0o644); os.write(f, b"whole"); os._exit(` + code + `)'`)
		s.eventually(name, "completed")
		s.completed(name, []byte("whole"))
	}
	out, status := s.unseen(`python3 -c '
import os, threading
f = os.open("threads", os.O_WRONLY|os.O_CREAT, 0o644); os.write(f, b"whole")
threading.Thread(target=threading.Event().wait, daemon=True).start()
os._exit(0)'`)
	require.Zero(t, status, out)
	s.eventually("threads", "completed")
	require.Equal(t, int64(3), s.API.Stats().UploadsCreated)
}

// TestUnseenHelperIsKilled: a helper of an opener that goes on.
func TestUnseenHelperIsKilled(t *testing.T) {
	s := newUnseenStack(t, stackOptions{})
	if !s.tellsExits() {
		t.Skip("cannot be known at all")
	}
	for sig, state := range map[string]string{"TERM": "completed", "HUP": "completed", "SEGV": "interrupted", "KILL": "interrupted"} {
		out, _ := s.unseen(`python3 -c '
import signal, subprocess
with open("f` + sig + `", "wb", 0) as f:
    f.write(b"a"); p = subprocess.Popen(["sleep", "100"], stdout=f)
    p.send_signal(signal.SIG` + sig + `); p.wait()'`)
		require.Equal(t, state, s.settled("f"+sig), "%s: %s", sig, out)
	}
}

// TestUnseenHelperBeforeItsOpener: a helper that the opener has waited for is decided
// before the opener's close, however soon that follows. Each round is another chance.
func TestUnseenHelperBeforeItsOpener(t *testing.T) {
	s := newUnseenStack(t, stackOptions{Unseen: fusefs.UnseenCommit})
	if !s.tellsExits() {
		t.Skip("cannot be known at all")
	}
	for round := range 20 {
		name := "f" + strconv.Itoa(round)
		out, status := s.unseen(`python3 -c '
import signal, subprocess
f = open("` + name + `", "wb", 0); f.write(b"a")
p = subprocess.Popen(["sleep", "100"], stdout=f)
p.send_signal(signal.SIGSEGV); p.wait()
try: f.close()
except OSError as e: assert e.errno == 5, e
else: assert False, "no error"'`)
		require.Zero(t, status, "round %d: %s", round, out)
		require.Equal(t, "interrupted", s.settled(name))
	}
	require.Zero(t, s.API.Stats().FilesCreated)
}

// TestUnseenHelperOutlivesItsOpener: of several closes by a helper the last one counts.
// The first one is that of execve(2), while the opener is still there. The script waits
// for the helper, which has its output.
func TestUnseenHelperOutlivesItsOpener(t *testing.T) {
	s := newUnseenStack(t, stackOptions{})
	if !s.tellsExits() {
		t.Skip("cannot be known at all")
	}
	out, status := s.unseen(`python3 -c '
import os, subprocess, sys
helper = """
import os, signal, time
while os.getppid() == int(os.environ["OPENER"]): time.sleep(0.001)
os.write(1, b"half"); os.kill(os.getpid(), signal.SIGTERM)
"""
f = open("f", "wb", 0); f.write(b"a")
subprocess.Popen([sys.executable, "-c", helper], stdout=f, env={**os.environ, "OPENER": str(os.getpid())})
os._exit(0)'`)
	require.Zero(t, status, out)
	require.Equal(t, "interrupted", s.settled("f"))
}

// TestUnseenWritersCommit: with UnseenCommit each close waits for its File.
func TestUnseenWritersCommit(t *testing.T) {
	s := newUnseenStack(t, stackOptions{Unseen: fusefs.UnseenCommit})
	out, status := s.unseen(`head -c 100000 /dev/zero > f; cp f g && getfattr --only-values -n user.uploadfs.state f g`)
	require.Zero(t, status, out)
	require.Equal(t, "completedcompleted", out)
	s.completed("g", make([]byte, 100000))
}

// TestUnseenWriterIsInterrupted: a close that waits ends with a signal, even where no
// signal can be seen.
func TestUnseenWriterIsInterrupted(t *testing.T) {
	s := newUnseenStack(t, stackOptions{Unseen: fusefs.UnseenCommit})
	reached, open := blockCalls(s.API, local.OpCreate)
	ended := make(chan string)
	go func() {
		out, _ := s.unseen(`exec 2>&1; cp /etc/passwd f & pid=$!; while read -t 0.1 go < go || [[ ! -e go ]]; do :; done; kill $pid; wait $pid; echo $?`)
		ended <- out
	}()
	<-reached
	s.run(`: > go`)
	require.Contains(t, <-ended, "143", "while the API is blocked")
	require.Equal(t, "uploading", s.attr("f", "state"))
	open()
	s.eventually("f", "completed")
}

// TestUnseenWritersAreNoted: the mount says what it cannot judge.
func TestUnseenWritersAreNoted(t *testing.T) {
	s := newUnseenStack(t, stackOptions{})
	notes := strings.Join(s.Mount.Notes(), "\n")
	if s.kind == "PID namespace" {
		require.Empty(t, notes, "no other namespace has the mount")
	} else {
		require.Contains(t, notes, "programs of other users")
		require.Contains(t, notes, "belong to this user")
	}
	s.unseen(`echo x > f`)
	s.eventually("f", "completed")
	require.Contains(t, strings.Join(s.Mount.Notes(), "\n"), "could not be observed")
	require.Contains(t, strings.Join(s.Mount.Notes(), "\n"), "--unseen-writers")
}

// TestSeenWritersAreNotNoted: a mount that sees all writers says nothing.
func TestSeenWritersAreNotNoted(t *testing.T) {
	s := newStack(t, stackOptions{})
	s.run(`echo x > f`)
	require.Empty(t, s.Mount.Notes())
}
