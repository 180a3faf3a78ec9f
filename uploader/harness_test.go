//go:build linux

package uploader_test

import (
	"context"
	"crypto/md5"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/api/retry"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// chunk is the part size of the tests, in bytes.
const chunk = 1 << 10

// tick is how often a test looks whether it has happened.
const tick = time.Millisecond

// patience bounds every wait for what must happen. A slow machine must not reach it.
const patience = 5 * time.Minute

// harness is an Uploader over a tree of its own, with an API in memory behind the
// retrying that it has in earnest.
type harness struct {
	t    testing.TB
	root string // holds the tree and the state directories
	mem  *apitest.Memory
	opts uploader.Options
	log  *journalist
	tree *backing.Tree
	up   *uploader.Uploader // nil once stopped
	open map[*file]bool
}

// newHarness opens an Uploader; change may alter its options. When the test ends,
// everything is closed, and no descriptor may be left and no illegal change of
// state have happened.
func newHarness(t testing.TB, change ...func(*uploader.Options)) *harness {
	t.Helper()
	w := &harness{t: t, root: t.TempDir(), mem: apitest.NewMemory(), log: &journalist{}, open: map[*file]bool{}}
	require.NoError(t, os.Mkdir(w.path(""), 0o700))
	var err error
	w.tree, err = backing.Open(w.path(""))
	require.NoError(t, err)
	w.opts = uploader.Options{
		Backend:   retry.New(w.mem, retry.Options{First: time.Millisecond, Max: 4 * time.Millisecond}),
		Tree:      w.tree,
		StateDir:  filepath.Join(w.root, "state"),
		PartSize:  chunk,
		Parallel:  4,
		SmallPart: 1, // so that the tests' short parts are large ones
		Checksum:  true,
		Logger:    slog.New(w.log),
		BootID:    "a boot",
		HeadStart: patience,
		Listing:   uploader.ListingPolicy{Apart: 5 * time.Millisecond, Limit: 200 * time.Millisecond},
	}
	require.NoError(t, os.Mkdir(w.opts.StateDir, 0o700))
	for _, f := range change {
		f(&w.opts)
	}
	w.start()
	t.Cleanup(func() {
		for f := range w.open {
			f.close()
		}
		w.stop()
		require.NoError(t, w.tree.Close())
		require.Empty(t, descriptors(t, w.root), "descriptors are left")
		require.Empty(t, w.log.mistakes())
	})
	return w
}

// path is where a file of the tree is.
func (w *harness) path(rel string) string { return filepath.Join(w.root, "tree", rel) }

func (w *harness) start() {
	w.t.Helper()
	var err error
	w.up, err = uploader.Open(w.opts)
	require.NoError(w.t, err)
}

func (w *harness) stop() {
	w.t.Helper()
	if w.up != nil {
		require.NoError(w.t, w.up.Close())
		w.up = nil
	}
}

// remount stops the Uploader as an unmount does, and starts the next one.
func (w *harness) remount() {
	w.t.Helper()
	w.stop()
	w.start()
}

// crash starts the next Uploader from the journal as it is now, as if the daemon
// had been killed at this moment. Nothing may be writing to the journal.
func (w *harness) crash(meanwhile ...func()) {
	w.t.Helper()
	next, err := os.MkdirTemp(w.root, "state")
	require.NoError(w.t, err)
	// The log first: a checkpoint between the two copies what is in it already.
	for _, name := range []string{"journal.db-wal", "journal.db"} {
		data, err := os.ReadFile(filepath.Join(w.opts.StateDir, name))
		require.NoError(w.t, err)
		require.NoError(w.t, os.WriteFile(filepath.Join(next, name), data, 0o600))
	}
	w.stop()
	w.closeAll()
	w.opts.StateDir = next
	for _, f := range meanwhile {
		f()
	}
	w.start()
}

// closeAll closes what is open. A daemon that has ended has nothing open.
func (w *harness) closeAll() {
	for f := range w.open {
		f.close()
	}
}

// file is a handle of the mount.
type file struct {
	*uploader.Writer
	h   *harness
	f   *os.File
	rel string
	key backing.Key
}

func (w *harness) openFile(rel string) *file {
	w.t.Helper()
	f, err := w.tryOpen(rel)
	require.NoError(w.t, err)
	return f
}

func (w *harness) tryOpen(rel string) (*file, error) {
	f, err := os.OpenFile(w.path(rel), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	h, err := w.handle(f, rel, uploader.Found)
	if err != nil {
		f.Close()
		return nil, err
	}
	return h, nil
}

func (w *harness) handle(f *os.File, rel string, from uploader.Origin) (*file, error) {
	info, err := backing.StatFd(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	writer, err := w.up.OpenWriter(info.Key, rel, f, from)
	if err != nil {
		return nil, err
	}
	h := &file{writer, w, f, rel, info.Key}
	w.open[h] = true
	return h, nil
}

func (f *file) writeAt(off int64, data []byte) {
	f.h.t.Helper()
	_, err := f.Write(off, data, func() (int64, error) {
		n, err := f.f.WriteAt(data, off)
		return int64(n), err
	})
	require.NoError(f.h.t, err)
}

func (f *file) failWrite(off, n, done int64, cause error) {
	f.h.t.Helper()
	_, err := f.Write(off, make([]byte, n), func() (int64, error) {
		k, err := f.f.WriteAt(make([]byte, done), off)
		require.NoError(f.h.t, err)
		return int64(k), cause
	})
	require.ErrorIs(f.h.t, err, cause)
}

func (f *file) truncate(size int64) {
	f.h.t.Helper()
	require.NoError(f.h.t, f.Resize(size, func() error { return f.f.Truncate(size) }))
}

// replace writes the whole content anew.
func (f *file) replace(data []byte) {
	f.h.t.Helper()
	f.truncate(0)
	f.writeAt(0, data)
}

func (f *file) commit() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return f.Commit(ctx)
}

func (f *file) close() {
	if f.h.open[f] {
		delete(f.h.open, f)
		f.Writer.Close()
		f.f.Close()
	}
}

// committing is a commit that another goroutine waits for.
func (f *file) committing() *answer {
	a := &answer{done: make(chan error, 1)}
	go func() { a.done <- f.commit() }()
	return a
}

type answer struct{ done chan error }

func (a *answer) await(t testing.TB) error {
	t.Helper()
	select {
	case err := <-a.done:
		return err
	case <-time.After(patience + time.Minute):
		t.Fatal("the close was never answered")
		return nil
	}
}

// put makes a file as cp does: open, write, close.
func (w *harness) put(rel string, data []byte) error {
	w.t.Helper()
	f := w.openFile(rel)
	f.replace(data)
	err := f.commit()
	f.close()
	return err
}

// status is what is known of a file in the tree.
func (w *harness) status(rel string) *uploader.Status {
	w.t.Helper()
	return w.up.Status(w.key(rel), rel)
}

func (w *harness) key(rel string) backing.Key {
	w.t.Helper()
	info, err := w.tree.Stat(rel)
	require.NoError(w.t, err)
	return info.Key
}

// changing changes the metadata of a file as a request through the mount does.
func (w *harness) changing(rel string, mtime bool, do func() error) {
	w.t.Helper()
	require.NoError(w.t, w.up.ChangeMetadata(do, uploader.MetadataChange{
		Key: w.key(rel), Mtime: mtime, Stat: func() (backing.Info, error) { return w.tree.Stat(rel) },
	}))
}

// settle waits until nothing is under way.
func (w *harness) settle() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.Empty(w.t, w.up.Drain(ctx))
}

// idle waits until the table has n sessions.
func (w *harness) idle(n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.True(w.t, w.up.AwaitSessions(ctx, n), "%d sessions are left", w.up.Sessions())
}

// uploaded checks that a file is completed, and that its File has the bytes of
// the tree.
func (w *harness) uploaded(rel string) *uploader.Status {
	w.t.Helper()
	st := w.status(rel)
	require.Equal(w.t, state.Completed, st.State, st.Error)
	w.holds(rel, st)
	return st
}

func (w *harness) holds(rel string, st *uploader.Status) {
	w.t.Helper()
	want, err := os.ReadFile(w.path(rel))
	require.NoError(w.t, err)
	got, ok := w.mem.Content(st.FileID)
	require.True(w.t, ok, "there is no File %q", st.FileID)
	require.True(w.t, slices.Equal(want, got), "the File is not what is in the tree")
	require.EqualValues(w.t, len(want), st.Size)
	require.Equal(w.t, st.Total, st.Acked)
	require.Equal(w.t, (len(want)+chunk-1)/chunk, st.Total)
	require.EqualValues(w.t, len(want), st.BytesSent)
	if w.opts.Checksum {
		require.Equal(w.t, fmt.Sprintf("%x", md5.Sum(want)), st.MD5)
	}
}

// noResult checks that a file shows nothing of a File.
func (w *harness) noResult(rel string) *uploader.Status {
	w.t.Helper()
	st := w.status(rel)
	require.Empty(w.t, st.FileID)
	require.Empty(w.t, st.MD5)
	return st
}

// data is n bytes that differ with seed, and in every chunk.
func data(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i) + byte(i/chunk)*3
	}
	return b
}

// descriptors are those of this process that lead below dir.
func descriptors(t testing.TB, dir string) []string {
	t.Helper()
	const table = "/proc/self/fd"
	entries, err := os.ReadDir(table)
	require.NoError(t, err)
	var found []string
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(table, e.Name()))
		if err == nil && strings.HasPrefix(to, dir) {
			found = append(found, to)
		}
	}
	return found
}

// journalist keeps what is logged.
type journalist struct {
	mu      sync.Mutex
	records []slog.Record
}

func (j *journalist) Enabled(context.Context, slog.Level) bool { return true }
func (j *journalist) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journalist) WithGroup(string) slog.Handler            { return j }

func (j *journalist) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, r)
	return nil
}

// count is how often msg was logged.
func (j *journalist) count(msg string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, r := range j.records {
		if r.Message == msg {
			n++
		}
	}
	return n
}

// mistakes are the errors that were logged other than a file's failure.
func (j *journalist) mistakes() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []string
	for _, r := range j.records {
		if r.Level < slog.LevelError || r.Message == "failed" {
			continue
		}
		line := r.Message
		r.Attrs(func(a slog.Attr) bool {
			line += " " + a.String()
			return true
		})
		found = append(found, line)
	}
	return found
}

// forgive forgets the mistakes so far.
func (j *journalist) forgive() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = nil
}

// tmpfile is a file without a name.
func (w *harness) tmpfile() *file {
	w.t.Helper()
	f, err := os.CreateTemp(w.path(""), "unnamed")
	require.NoError(w.t, err)
	require.NoError(w.t, os.Remove(f.Name()))
	h, err := w.handle(f, "", uploader.Found)
	require.NoError(w.t, err)
	return h
}

// unnamed is a file that has no name yet, and may get one (O_TMPFILE).
func (w *harness) unnamed() *file {
	w.t.Helper()
	fd, err := unix.Open(w.path(""), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	require.NoError(w.t, err)
	h, err := w.handle(os.NewFile(uintptr(fd), "unnamed"), "", uploader.Found)
	require.NoError(w.t, err)
	return h
}

// procName is a path that leads to the file behind a descriptor.
func procName(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// timeout is the context of whatever must end soon.
func timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}
