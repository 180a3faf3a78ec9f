//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

// put prepares a put with the box's own state directory.
func (b *box) put(args ...string) []string {
	return append([]string{"put", "--state-dir", b.state}, args...)
}

// content is what a File at the API has.
func (a *testAPI) content(b *box, fileID string) []byte {
	b.Helper()
	r, err := a.OpenContent(fileID)
	require.NoError(b, err)
	defer r.Close()
	content, err := io.ReadAll(r)
	require.NoError(b, err)
	return content
}

// file is what the API says of a File.
func (a *testAPI) file(b *box, fileID string) local.FileInfo {
	b.Helper()
	for _, f := range a.Files() {
		if f.ID == fileID {
			return f
		}
	}
	require.FailNow(b, "no such File", fileID)
	return local.FileInfo{}
}

// big writes a file of n bytes, of which no two KiB are alike.
func (b *box) big(name string, n int) []byte {
	b.Helper()
	content := make([]byte, n)
	for i := 0; i+8 <= n; i += 1 << 10 {
		copy(content[i:], fmt.Sprintf("%08x", i))
	}
	b.write(name, string(content))
	return content
}

func TestPutFiles(t *testing.T) {
	eachUser(t, func(b *box) {
		a := newAPI(b.T)
		a.use(b)
		content := b.big("big.bin", 20<<20+1)
		b.write("train.jsonl", "{}\n")
		out := b.ok(b.put("--part-size", "8MiB", "--expires-after", "2h", b.path("big.bin"), "train.jsonl")...)
		ids := strings.Fields(out)
		require.Len(b, ids, 2)
		require.True(b, bytes.Equal(content, a.content(b, ids[0])))
		big := a.file(b, ids[0])
		require.Equal(b, "big.bin", big.Filename)
		require.Equal(b, "user_data", big.Purpose)
		require.Equal(b, "application/octet-stream", big.MimeType)
		require.Len(b, big.Parts, 3)
		require.InDelta(b, 7200, big.ExpiresAt.Sub(big.CreatedAt).Seconds(), 2)
		small := a.file(b, ids[1])
		require.Equal(b, "train.jsonl", small.Filename)
		require.Equal(b, "text/jsonl", small.MimeType)

		line := b.ok(b.put("--json", "--purpose", "batch", "--filename", "other.jsonl", "--mime-type", "text/plain",
			"--checksum", "none", "--base-url", a.url, "train.jsonl")...)
		var st uploader.Status
		require.NoError(b, json.Unmarshal([]byte(line), &st))
		require.Equal(b, 1, strings.Count(line, "\n"))
		require.Equal(b, "train.jsonl", st.Path)
		require.Equal(b, state.Completed, st.State)
		require.Empty(b, st.MD5)
		require.NotContains(b, ids, st.FileID, "another put is another File")
		other := a.file(b, st.FileID)
		require.Equal(b, "other.jsonl", other.Filename)
		require.Equal(b, "batch", other.Purpose)
		require.Equal(b, "text/plain", other.MimeType)

		fi, err := os.Stat(b.state)
		require.NoError(b, err)
		require.Equal(b, os.FileMode(0o700), fi.Mode().Perm())
	})
}

func TestPutShowsProgressOnStderr(t *testing.T) {
	b := self(t)
	newAPI(t).use(b)
	b.write("a", "hello")
	r := b.uploadfs(b.put("a")...)
	require.Zero(t, r.code, r.stderr)
	require.Regexp(t, `^a: sending, 5 B\na: file-\w+, 5 B in .*/s\n$`, r.stderr)
	r = b.uploadfs(b.put("--quiet", "--again", "a")...)
	require.Zero(t, r.code)
	require.Empty(t, r.stderr)
}

func TestPutAgain(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.write("a", "hello")
	first := b.ok(b.put("--quiet", "a")...)
	r := b.uploadfs(b.put("a")...)
	require.Equal(t, first, r.stdout)
	require.Regexp(t, `^a: file-\w+, unchanged, not sent again\n$`, r.stderr)
	require.Contains(t, b.ok(b.put("--quiet", "--json", "a")...), `"unchanged":true`)
	require.Len(t, a.Files(), 1)
	require.NotEqual(t, first, b.ok(b.put("--quiet", "--again", "a")...))

	// What the API has lost is sent, and what it does not tell of is not.
	last := b.ok(b.put("--quiet", "a")...)
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpFileGet && p.Stage == local.StageHead {
			return &local.Fault{Status: 403, Message: "Not you."}
		}
		return nil
	})
	b.refused(1, "a: it was sent before, and whether "+strings.TrimSpace(last)+" still exists cannot be told", b.put("--quiet", "a")...)
	a.SetIntercept(nil)
	request, err := http.NewRequest(http.MethodDelete, a.url+"/files/"+strings.TrimSpace(last), nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+testKey)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)
	require.NotEqual(t, last, b.ok(b.put("--quiet", "a")...))
}

func TestPutStandardInput(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	put := binary + " put --quiet --state-dir " + b.state
	id := strings.TrimSpace(b.shOK("printf hello | " + put + " --filename x.txt -"))
	require.Equal(t, "hello", string(a.content(b, id)))
	require.Equal(t, "x.txt", a.file(b, id).Filename)
	spooled := func() []string {
		names, err := filepath.Glob(filepath.Join(b.state, "spool", "*"))
		require.NoError(t, err)
		return names
	}
	require.Empty(t, spooled())

	// A file needs no copy, and is read to its end. From its middle on it is a stream.
	b.write("in", "one\ntwo\n")
	var copied atomic.Bool
	a.SetIntercept(func(local.Point) *local.Fault {
		if len(spooled()) > 0 {
			copied.Store(true)
		}
		return nil
	})
	whole := strings.Fields(b.shOK("(" + put + " --filename in -; cat) <in; " + put + " --filename in - <in"))
	a.SetIntercept(nil)
	require.False(t, copied.Load())
	require.Len(t, whole, 2, "it was read")
	require.Equal(t, whole[0], whole[1], "the second sends nothing")
	require.Equal(t, "one\ntwo\n", string(a.content(b, whole[0])))
	rest := strings.TrimSpace(b.shOK("(read -r line; " + put + " --filename in -) <in"))
	require.Equal(t, "two\n", string(a.content(b, rest)))

	r := b.sh(": | " + put + " --filename x.txt -")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "standard input is empty")
	require.Empty(t, spooled())

	// What cannot be read again is kept, and the line says how to go on.
	a.refuse(403, "Not you.")
	r = b.sh("printf world | " + put + " --filename 'a b' -")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "Not you.; what was read is kept: give "+spooled()[0]+" instead of - to go on")
	a.SetIntercept(nil)
	parts := a.Stats().PartsStored
	id = strings.TrimSpace(b.ok(b.put("--quiet", "--filename", "a b", spooled()[0])...))
	require.Equal(t, "world", string(a.content(b, id)))
	require.Equal(t, parts, a.Stats().PartsStored, "the part was there")
}

func TestPutTree(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.state = b.path("d/state") // its own files are not sent
	for name, content := range map[string]string{
		"d/a.txt": "aaa", "d/sub/b.txt": "bbb", "d/sub/empty": "", "d/.DS_Store": "x", "d/.Trash-1000/files/c": "c", "other": "o",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(b.path(name)), 0o755))
		b.write(name, content)
	}
	require.NoError(t, os.Link(b.path("d/a.txt"), b.path("d/twin")))
	require.NoError(t, os.Symlink("a.txt", b.path("d/symlink")))
	require.NoError(t, os.Symlink("d", b.path("link")))
	b.shOK("chown -R --no-dereference " + strconv.Itoa(b.user.uid) + " d")
	put := func(args ...string) (lines []string, stderr string) {
		r := b.uploadfs(b.put(append([]string{"--quiet", "-r"}, args...)...)...)
		require.Zero(t, r.code, r.stderr)
		return strings.Split(strings.TrimSpace(r.stdout), "\n"), r.stderr
	}
	first, stderr := put("d", "other")
	require.Regexp(t, `^file-\w+  d/a.txt,file-\w+  d/sub/b.txt,file-\w+  other$`, strings.Join(first, ","))
	require.Equal(t, "uploadfs: warning: d: left out: 1 empty, 1 not regular, 2 excluded by name, 1 another name of a file\n", stderr)
	require.Len(t, a.Files(), 3)

	// Only what has changed is sent the next time.
	b.write("d/sub/b.txt", "new")
	second, _ := put("link")
	require.Len(t, second, 2)
	require.Equal(t, strings.Replace(first[0], "d/", "link/", 1), second[0])
	require.NotEqual(t, strings.Replace(first[1], "d/", "link/", 1), second[1])
	require.Equal(t, "new", string(a.content(b, strings.Fields(second[1])[0])))
	require.Len(t, a.Files(), 4)

	require.NoError(t, os.Mkdir(b.path("none"), 0o755))
	_, stderr = put("none")
	require.Contains(t, stderr, "none has no files")
	b.refused(1, "give -r", b.put("d")...)
	b.refused(1, "nofile: no such file", b.put("-r", "other", "nofile")...)
	b.refused(2, "without -r", b.put("-r", "--filename", "x", "d")...)
}

// stopped is a put that has been ended with n of its parts acknowledged. It sends
// one after the other: when the next one is held, all answers but the last one are
// in its journal.
func (b *box) stopped(a *testAPI, n int, sig syscall.Signal, args ...string) result {
	b.Helper()
	began := make(chan struct{}, 100)
	gate := make(chan struct{}, n)
	for range n {
		gate <- struct{}{}
	}
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageReceived {
			select {
			case <-gate:
			default:
				began <- struct{}{}
				<-p.Request.Context().Done()
				return &local.Fault{Reset: true}
			}
		}
		return nil
	})
	defer a.SetIntercept(nil)
	cmd := b.command(binary, append(args, "--parallel", "1")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(b, cmd.Start())
	<-began
	require.NoError(b, cmd.Process.Signal(sig))
	require.Error(b, cmd.Wait())
	return result{stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

func TestPutGoesOn(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			b := self(t)
			a := newAPI(t)
			a.use(b)
			content := b.big("f", 40<<20)
			args := b.put("--part-size", "8MiB", "f")
			r := b.stopped(a, 3, sig, args...)
			if sig != syscall.SIGKILL {
				require.Equal(t, 1, r.code)
				require.Regexp(t, `uploadfs: f: stopped; the API has [23]/5 parts, and the same command goes on from there until \d\d:\d\d\n$`, r.stderr)
			}
			before := a.Stats().PartsStored
			r = b.uploadfs(args...)
			require.Zero(t, r.code, r.stderr)
			var known int64
			_, err := fmt.Sscanf(r.stderr, "f: going on with %d/5 parts, 40 MiB\n", &known)
			require.NoError(t, err, r.stderr)
			require.GreaterOrEqual(t, known, int64(2))
			require.True(t, bytes.Equal(content, a.content(b, strings.TrimSpace(r.stdout))))
			require.EqualValues(t, 1, a.Stats().UploadsCreated)
			require.Equal(t, before+5-known, a.Stats().PartsStored)
		})
	}
}

func TestPutOfAFileThatChanges(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	content := b.big("f", 24<<20)
	started, release := a.block(t)
	cmd := b.command(binary, b.put("--part-size", "8MiB", "f")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	<-started
	copy(content[9<<20:], "changed")
	b.write("f", string(content))
	require.Error(t, cmd.Wait(), "nothing was let through")
	require.Contains(t, stderr.String(), "f: the file changed while it was being sent, and nothing was published")
	release()
	require.Empty(t, a.Files())
	id := strings.TrimSpace(b.ok(b.put("--part-size", "8MiB", "f")...))
	require.True(t, bytes.Equal(content, a.content(b, id)))
}

func TestPutOneProcessPerFile(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.write("f", "hello")
	b.write("g", "world")
	started, release := a.block(t)
	cmd := b.command(binary, b.put("--quiet", "f")...)
	require.NoError(t, cmd.Start())
	<-started
	b.refused(1, fmt.Sprintf("f: process %d is already sending it", cmd.Process.Pid), b.put("--quiet", "f")...)
	release()
	b.ok(b.put("g")...)
	require.NoError(t, cmd.Wait())
	require.Len(t, a.Files(), 2)
}

// Many at once find no journal and make one together.
func TestPutInManyProcesses(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	var script strings.Builder
	for i := range 8 {
		b.write(fmt.Sprint("f", i), "hello")
		fmt.Fprintf(&script, "%s put --quiet --state-dir %s f%d & pids+=\" $!\"\n", binary, b.state, i)
	}
	script.WriteString("for pid in $pids; do wait $pid || exit; done")
	r := b.do(b.command("bash", "-c", script.String()))
	require.Zero(t, r.code, r.stderr)
	require.Len(t, strings.Fields(r.stdout), 8)
	require.Len(t, a.Files(), 8)
}

func TestPutSomeFail(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.write("a", "aaa")
	b.write("bb", "bbbb")
	b.write("c", "ccc")
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpComplete && p.Stage == local.StageReceived {
			for _, u := range a.Uploads() {
				if u.ID == p.ID && u.Filename == "bb" {
					return &local.Fault{Status: 400, Message: "Not this one."}
				}
			}
		}
		return nil
	})
	r := b.uploadfs(b.put("--quiet", "a", "bb", "c")...)
	require.Equal(t, 1, r.code)
	require.Len(t, strings.Fields(r.stdout), 2)
	require.Regexp(t, `^uploadfs: bb: complete upload_\w+: Not this one.\n$`, r.stderr)

	r = b.uploadfs(b.put("--quiet", "--json", "bb")...)
	require.Equal(t, 1, r.code)
	var st uploader.Status
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &st))
	require.Equal(t, state.Failed, st.State)
	require.Contains(t, st.Error, "Not this one.")
}

func TestPutGivesUp(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.write("f", "hello")
	_, release := a.block(t)
	b.refused(1, "f: nothing was acknowledged for 300ms (see --timeout)", b.put("--quiet", "--timeout", "300ms", "f")...)
	release()
}

// The line that says that put gives up also says why the API took nothing.
func TestPutGivesUpWithTheReason(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.write("f", "hello")
	var refused atomic.Int64
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Stage == local.StageHead {
			refused.Add(1)
			return &local.Fault{Status: 503, Message: "Closed for today."}
		}
		return nil
	})
	// A slow machine may give up before its first attempt: it gets more time then.
	gaveUp := func(timeout time.Duration, args ...string) (result, time.Duration) {
		for ; ; timeout *= 2 {
			before := refused.Load()
			r := b.uploadfs(b.put(append(args, "--quiet", "--timeout", timeout.String(), "f")...)...)
			if refused.Load() > before {
				return r, timeout
			}
		}
	}
	r, timeout := gaveUp(300 * time.Millisecond)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, fmt.Sprintf("f: nothing was acknowledged for %v (see --timeout); the last attempt: ", timeout))
	require.Contains(t, r.stderr, "Closed for today.")

	r, _ = gaveUp(timeout, "--json")
	var st uploader.Status
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &st))
	require.Contains(t, st.Error, "Closed for today.")
}

// A directory that was there keeps its mode, and what put makes in it is private.
func TestPutLeavesAStateDirAsItIs(t *testing.T) {
	eachUser(t, func(b *box) {
		newAPI(b.T).use(b)
		b.write("f", "hello")
		mkdir := func(name string, mode os.FileMode) string {
			require.NoError(b, os.Mkdir(b.path(name), 0o700))
			require.NoError(b, os.Chown(b.path(name), b.user.uid, b.user.uid))
			require.NoError(b, os.Chmod(b.path(name), mode))
			return b.path(name)
		}
		modeOf := func(path string) os.FileMode {
			fi, err := os.Stat(path)
			require.NoError(b, err)
			return fi.Mode() &^ os.ModeDir
		}
		for name, mode := range map[string]os.FileMode{"open": 0o755, "like-tmp": os.ModeSticky | 0o777} {
			dir := mkdir(name, mode)
			b.ok("put", "--quiet", "--state-dir", dir, "f")
			require.Equal(b, mode, modeOf(dir))
			inside, err := filepath.Glob(filepath.Join(dir, "*"))
			require.NoError(b, err)
			require.Len(b, inside, 3)
			for _, d := range inside {
				require.Equal(b, os.FileMode(0o700), modeOf(d), d)
			}
		}
		shared := mkdir("shared", 0o775)
		b.refused(1, "can be written to by other users", "put", "--quiet", "--state-dir", shared, "f")
		require.Equal(b, os.FileMode(0o775), modeOf(shared))
		planted := mkdir("planted", 0o755)
		require.NoError(b, os.Mkdir(filepath.Join(planted, "spool"), 0o700))
		require.NoError(b, os.Chmod(filepath.Join(planted, "spool"), 0o755))
		require.NoError(b, os.Chown(filepath.Join(planted, "spool"), b.user.uid, b.user.uid))
		b.refused(1, "spool is not a directory for you alone", "put", "--quiet", "--state-dir", planted, "f")
		require.Equal(b, os.FileMode(0o755), modeOf(filepath.Join(planted, "spool")))
	})
}

func TestPutRefuses(t *testing.T) {
	b := self(t)
	b.write("f", "hello")
	b.write("key", testKey)
	b.refused(1, "no API key: set OPENAI_API_KEY, or give --api-key-file", b.put("f")...)
	a := newAPI(t)
	a.use(b)
	require.NoError(t, os.Symlink("f", b.path("link")))
	require.NoError(t, os.Link(b.path("f"), b.path("twin")))
	require.NoError(t, os.WriteFile(b.path("empty"), nil, 0o600))
	require.NoError(t, os.WriteFile(b.path("huge"), nil, 0o600))
	require.NoError(t, os.Truncate(b.path("huge"), api.MaxUpload+1))
	b.refused(2, "name the files", b.put()...)
	b.refused(2, "unknown purpose", b.put("--purpose", "fun", "f")...)
	b.refused(2, "3600 to 2592000", b.put("--expires-after", "5m", "f")...)
	b.refused(2, "give it one with --filename", b.put("f", "-")...)
	b.refused(2, "give one file", b.put("--filename", "x", "f", "empty")...)
	b.refused(2, "8MiB to 64MiB", b.put("--part-size", "1MiB", "f")...)
	b.refused(2, "give 1 to 256", b.put("--parallel", "0", "f")...)
	b.refused(2, "md5 or none", b.put("--checksum", "sha256", "f")...)
	b.refused(1, "nofile: no such file", b.put("f", "nofile")...)
	b.refused(1, "empty is empty", b.put("f", "empty")...)
	b.refused(1, "is a directory", b.put("f", ".")...)
	b.refused(1, "(8,589,934,593 bytes)", b.put("f", "huge")...)
	for _, other := range []string{"./f", "link", "twin"} {
		b.refused(1, "are the same file", b.put("f", other)...)
	}
	require.Zero(t, a.Stats().UploadsCreated, "a mistake is found before anything is sent")

	r := b.uploadfs(b.put("--quiet", "--purpose", "fine-tune", "f")...)
	require.Zero(t, r.code)
	require.Equal(t, "uploadfs: warning: f: purpose fine-tune takes .jsonl files only, and this one will be called f\n", r.stderr)
}

func TestPutDefaultStateDir(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/xdg")
	dir, err := defaultPutDir()
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		require.Equal(t, "/var/lib/uploadfs/@put", dir)
	} else {
		require.Equal(t, "/xdg/uploadfs/@put", dir)
	}
}
