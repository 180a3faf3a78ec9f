package fusefs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
	"uploadfs/uploader"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/api/openai"
	"uploadfs/uploader/api/retry"
	"uploadfs/uploader/backing"
)

const mib = 1 << 20

// partSize is that of a stack that asks for none. It is small, since the race detector
// looks at each byte that is copied, and nothing depends on it.
const partSize = mib

// stack is everything from the mount to the API: a real mount, the real uploader,
// the official SDK and an HTTP server on loopback.
type stack struct {
	t     testing.TB
	Dir   string // the mount point
	State string
	URL   string // of the API
	API   *local.Server
	Up    *uploader.Uploader
	Mount *fusefs.Server
	log   *testLog
	tree  *backing.Tree
	http  *openai.Backend
	opts  stackOptions
}

type stackOptions struct {
	Part       int64 // part size, bytes; partSize if 0, auto if negative
	Background bool
	Settle     time.Duration // of Background
	Unseen     fusefs.UnseenWriters
	Timeout    time.Duration // of close
	Names      uploader.NamePolicy
	NoMD5      bool
	Purpose    string
	Options    []string // of mount
	Path       fusefs.WritePath
	Point      *os.File // the opened directory to mount on; the stack's own if nil
	State      string   // the state directory; one of the test's own if ""
	API        local.Options
	Share      *stack                          // whose API is used, instead of one of its own
	Compare    <-chan struct{}                 // the comparison of old files waits for it; nil: it comes before the mount
	Stall      time.Duration                   // after which a call without progress has failed; 10 s if 0
	Wrap       func(http.Handler) http.Handler // around the API
	Line       func(addr string) string        // a proxy before the API's address; returns its own
}

// newStack mounts, and unmounts when the test ends.
func newStack(t testing.TB, o stackOptions) *stack {
	t.Helper()
	s := &stack{t: t, opts: o, log: &testLog{t: t}, Dir: filepath.Join(t.TempDir(), "mnt"), State: o.State}
	if s.State == "" {
		s.State = t.TempDir()
	}
	require.NoError(t, os.Mkdir(s.Dir, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(s.State, "tree"), 0o755))
	if o.Share != nil {
		s.API, s.URL = o.Share.API, o.Share.URL
	} else {
		s.serve()
	}
	s.connect()
	s.mount()
	t.Cleanup(s.unmount)
	return s
}

// serve starts the API server of the stack.
func (s *stack) serve() {
	t, o := s.t, s.opts
	t.Helper()
	o.API.Dir, o.API.Key = filepath.Join(t.TempDir(), "api"), "test-key"
	api, err := local.Open(o.API)
	require.NoError(t, err)
	s.API = api
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hs := api.NewHTTPServer()
	if o.Wrap != nil {
		hs.Handler = o.Wrap(api)
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()
	t.Cleanup(func() {
		api.SetIntercept(nil)
		require.NoError(t, errors.Join(api.Close(), hs.Close()))
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	s.URL = "http://" + l.Addr().String() + "/v1"
}

// connect makes the client of the mount.
func (s *stack) connect() {
	t, o := s.t, s.opts
	t.Helper()
	base := s.URL
	if o.Line != nil {
		base = "http://" + o.Line(strings.TrimSuffix(strings.TrimPrefix(s.URL, "http://"), "/v1")) + "/v1"
	}
	stall := o.Stall
	if stall == 0 {
		stall = patience
	}
	var err error
	s.http, err = openai.New(openai.Config{
		BaseURL: base, Key: openai.StaticKey("test-key"), Slots: 4,
		Stall: stall, AnswerStall: stall, SlowestRate: 1 << 30,
	})
	require.NoError(t, err)
	t.Cleanup(s.http.Close)
}

// mount opens the state directory and mounts it.
func (s *stack) mount() {
	var err error
	s.tree, err = backing.Open(filepath.Join(s.State, "tree"))
	require.NoError(s.t, err)
	part := s.opts.Part
	switch {
	case part == 0:
		part = partSize
	case part < 0:
		part = 0
	}
	timeout := s.opts.Timeout
	if timeout == 0 {
		timeout = patience
	}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	headStart := patience
	if s.opts.Compare != nil {
		headStart = -1
	}
	s.Up, err = uploader.Open(uploader.Options{
		Backend: retry.New(s.http, retry.Options{First: 5 * time.Millisecond, Max: 50 * time.Millisecond}),
		Tree:    s.tree, StateDir: s.State, PartSize: part, Parallel: 4, Checksum: !s.opts.NoMD5,
		Purpose: s.opts.Purpose, Names: s.opts.Names, CloseTimeout: timeout, Logger: log, BootID: procfs.BootID(),
		HeadStart: headStart, CompareAfter: s.opts.Compare,
		Background: s.opts.Background, Settle: s.opts.Settle,
		Listing: uploader.ListingPolicy{Apart: 100 * time.Millisecond, Limit: 10 * time.Second},
	})
	require.NoError(s.t, err)
	path := s.opts.Path
	if path == "" {
		path = writePath()
	}
	s.Mount, err = fusefs.Mount(s.Dir,
		fusefs.Options{Tree: s.tree, Uploader: s.Up, Logger: log, CloseBackground: s.opts.Background,
			UnseenWriters: s.opts.Unseen, WritePath: path},
		fusefs.MountOptions{Dir: s.opts.Point, Source: s.State, Options: s.opts.Options})
	require.NoError(s.t, err)
}

// writePath is the write path to test: the best available, or the one that the
// environment names.
func writePath() fusefs.WritePath { return fusefs.WritePath(os.Getenv("UPLOADFS_TEST_WRITE_PATH")) }

// unmount ends the mount as a daemon does, without draining.
func (s *stack) unmount() {
	var err error
	for range 100 { // a process that was just killed may still be closing
		if err = s.Mount.Unmount(); err == nil {
			break
		}
		exec.Command("sync", "-f", s.Dir).Run()
	}
	require.NoError(s.t, err)
	s.Mount.Wait()
	require.NoError(s.t, s.Up.Close())
	require.NoError(s.t, s.tree.Close())
}

// testLog sends log lines to the test's own output, and keeps them.
type testLog struct {
	t testing.TB

	mu    sync.Mutex // guards lines
	lines []string
}

func (l *testLog) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	l.t.Log(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return len(b), nil
}

// has reports whether one line has all these words.
func (l *testLog) has(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
	})
}

func (s *stack) path(name string) string { return filepath.Join(s.Dir, name) }

// sh runs a shell script in the mount. File operations go through other
// processes: one that serves a mount must not wait for itself.
func (s *stack) sh(script string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-c", "cd \"$MNT\" && " + script, "bash"}, args...)...)
	cmd.Env = append(os.Environ(), "MNT="+s.Dir, "HOME="+s.State, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is sh for a script that must succeed; it returns what it printed.
func (s *stack) run(script string, args ...string) string {
	s.t.Helper()
	out, err := s.sh(script, args...)
	require.NoError(s.t, err, "%s\n%s", script, out)
	return strings.TrimSpace(out)
}

// attr reads one of our extended attributes; "" if it has no value.
func (s *stack) attr(name, attr string) string {
	s.t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Getxattr(s.path(name), uploader.AttrPrefix+attr, buf)
	if err == unix.ENODATA {
		return ""
	}
	require.NoError(s.t, err, "%s of %s", attr, name)
	return string(buf[:n])
}

// completed checks that the file's File holds exactly these bytes, and that its
// parts are those the API put it together from.
func (s *stack) completed(name string, want []byte) {
	s.t.Helper()
	s.holds(name, bytes.NewReader(want))
}

// sameAsFile checks that the file's File holds exactly what a program reads in the
// mount, and that its parts are those the API put it together from.
func (s *stack) sameAsFile(name string) {
	s.t.Helper()
	cmd := exec.Command("cat", s.path(name))
	out, err := cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, cmd.Start())
	defer cmd.Wait() // also where the comparison ends the test
	defer out.Close()
	s.holds(name, out)
	require.NoError(s.t, cmd.Wait())
}

// holds compares the File of a file, which must be completed, with a stream, and its
// attributes with the API's own record of the parts.
func (s *stack) holds(name string, want io.Reader) {
	s.t.Helper()
	require.Equal(s.t, "completed", s.attr(name, "state"), "%s, error: %s", name, s.attr(name, "error"))
	id := s.attr(name, "file_id")
	got, err := s.API.OpenContent(id)
	require.NoError(s.t, err)
	defer got.Close()
	size, same, err := compare(want, got)
	require.NoError(s.t, err)
	require.True(s.t, same, "the File of %s differs from byte %d on", name, size)
	f := s.file(id)
	var ids []string
	for _, p := range f.Parts {
		ids = append(ids, p.ID)
	}
	require.Equal(s.t, strings.Join(ids, ","), s.attr(name, "part_ids"))
	for i, p := range ids {
		require.Equal(s.t, p, s.attr(name, fmt.Sprint("part.", i)))
	}
	require.Equal(s.t, f.UploadID, s.attr(name, "upload_id"))
	require.Equal(s.t, fmt.Sprintf("%d/%d", len(ids), len(ids)), s.attr(name, "progress"))
	require.Equal(s.t, fmt.Sprint(size), s.attr(name, "bytes_sent"))
}

// file is the API's record of a File.
func (s *stack) file(id string) local.FileInfo {
	s.t.Helper()
	files := s.API.Files()
	i := slices.IndexFunc(files, func(f local.FileInfo) bool { return f.ID == id })
	require.GreaterOrEqual(s.t, i, 0, "unknown File %s", id)
	return files[i]
}

// compare reads two streams to their ends, or to their first difference; n is the
// number of bytes that they share. Its buffers are small, because the race detector
// makes fresh memory expensive.
func compare(a, b io.Reader) (n int64, same bool, err error) {
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		i, errA := io.ReadFull(a, p)
		j, errB := io.ReadFull(b, q)
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return n, false, err
			}
		}
		if !bytes.Equal(p[:i], q[:j]) {
			k := 0
			for k < min(i, j) && p[k] == q[k] {
				k++
			}
			return n + int64(k), false, nil
		}
		n += int64(i)
		if errA != nil {
			return n, true, nil
		}
	}
}

// content returns the bytes of a File.
func (s *stack) content(fileID string) []byte {
	s.t.Helper()
	r, err := s.API.OpenContent(fileID)
	require.NoError(s.t, err)
	defer r.Close()
	var b bytes.Buffer
	b.Grow(int(s.file(fileID).Bytes) + bytes.MinRead)
	_, err = b.ReadFrom(r)
	require.NoError(s.t, err)
	return b.Bytes()
}

// eventually waits until the file is in the state.
func (s *stack) eventually(name, state string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.attr(name, "state") == state }, patience, 5*time.Millisecond,
		"%s should become %s", name, state)
}

// source makes a file of n pseudo-random bytes outside the mount.
func source(t testing.TB, n int) (path string, content []byte) {
	t.Helper()
	content = random(n, uint64(n))
	path = filepath.Join(t.TempDir(), "source.bin")
	require.NoError(t, os.WriteFile(path, content, 0o644))
	return path, content
}

// largeSource is source for a file that should not lie in memory.
func largeSource(t testing.TB, n int64) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "source.bin")
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), n)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return path
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	r.Read(b)
	return b
}

// exitStatus is the status that a process ended with.
func exitStatus(err error) int {
	if e, ok := err.(*exec.ExitError); ok {
		return e.Sys().(syscall.WaitStatus).ExitStatus()
	}
	if err != nil {
		return -1
	}
	return 0
}
