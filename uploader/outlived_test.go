//go:build linux

package uploader_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

// waiting leaves n chunks of the file f waiting for the API, with acked of them sent,
// and returns a descriptor that outlives the daemon: as in passthrough, it is not ours.
func waiting(t *testing.T, w *harness, n, acked int) *os.File {
	t.Helper()
	sent(t, w, n*chunk, acked)
	through, err := os.OpenFile(w.path("f"), os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { through.Close() })
	return through
}

func TestAProgramWritesOnAfterTheDaemonHasEnded(t *testing.T) {
	before := func(write func(f *os.File)) func(*testing.T, *harness, *os.File) {
		return func(t *testing.T, w *harness, through *os.File) {
			w.crash(goOn(w), func() { write(through) })
		}
	}
	after := func(write func(f *os.File)) func(*testing.T, *harness, *os.File) {
		return func(t *testing.T, w *harness, through *os.File) {
			w.crash(goOn(w))
			require.Equal(t, state.Writing, w.status("f").State, "it is watched")
			write(through)
		}
	}
	overwrite := func(f *os.File) { must(f.WriteAt([]byte("!"), chunk+7)) }
	for name, c := range map[string]struct {
		acked int
		run   func(*testing.T, *harness, *os.File)
		whole bool
	}{
		"no write":              {0, before(func(*os.File) {}), true},
		"no write, mostly sent": {5, before(func(*os.File) {}), true},
		"before the mount":      {0, before(overwrite), false},
		"after the mount":       {0, after(overwrite), false},
		"of a part that was sent": {
			5, before(overwrite), false,
		},
		"appended": {0, after(func(f *os.File) { must(f.WriteAt([]byte("!"), 6*chunk)) }), false},
		"with the mtime put back": {0, before(func(f *os.File) {
			info, err := f.Stat()
			must(0, err)
			overwrite(f)
			must(0, os.Chtimes(f.Name(), info.ModTime(), info.ModTime()))
		}), false},
		"through a mapping": {0, after(func(f *os.File) {
			m, err := unix.Mmap(int(f.Fd()), 0, 6*chunk, unix.PROT_WRITE, unix.MAP_SHARED)
			must(0, err)
			must(0, f.Close())
			m[chunk] ^= 1
			must(0, unix.Munmap(m))
		}), false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			through := waiting(t, w, 6, c.acked)
			c.run(t, w, through)
			require.Equal(t, state.Writing, w.status("f").State)
			require.Empty(t, w.mem.Files(), "nothing of it is sent while it may change")
			require.Error(t, w.up.Retry("f"), "it is being written")
			through.Close()
			require.Eventually(t, func() bool { return w.status("f").State != state.Writing }, patience, tick)
			w.settle()
			if c.whole {
				w.uploaded("f")
				require.Equal(t, 6, w.mem.Counts().Parts, "no part is sent again")
				return
			}
			st := w.noResult("f")
			require.Equal(t, state.Interrupted, st.State)
			require.Contains(t, st.Error, "a program went on writing to it")
			require.Empty(t, w.mem.Files())
			require.NoError(t, w.up.Retry("f"))
			w.settle()
			w.uploaded("f")
		})
	}
}

// must is for what a test does in a program's stead.
func must(_ int, err error) {
	if err != nil {
		panic(err)
	}
}

func TestAWatchedFileSurvivesAnotherCrash(t *testing.T) {
	w := newHarness(t)
	through := waiting(t, w, 3, 0)
	w.crash(goOn(w))
	require.Equal(t, state.Writing, w.status("f").State)
	w.crash()
	require.Equal(t, state.Writing, w.status("f").State)
	w.crash(func() { through.Close() })
	w.settle()
	w.uploaded("f")
}

func TestACompletedFileIsWrittenToAfterTheDaemonHasEnded(t *testing.T) {
	for name, write := range map[string]bool{"written": true, "only open": false} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			require.NoError(t, w.put("f", data(3*chunk, 1)))
			before := w.uploaded("f")
			_, through := w.openBlind("f")
			w.crash()
			w.uploaded("f")
			if write {
				_, err := through.WriteAt([]byte("!"), 5)
				require.NoError(t, err)
				// A status never waits: while the session is busy, it is the last one published.
				require.Eventually(t, func() bool { return w.status("f").State == state.Writing }, patience, time.Millisecond)
				w.noResult("f")
			}
			require.NoError(t, through.Close())
			w.idleOr(t, write)
			if !write {
				w.uploaded("f")
				return
			}
			st := w.noResult("f")
			require.Equal(t, state.Interrupted, st.State)
			require.Equal(t, []string{before.FileID}, st.Superseded)
		})
	}
}

// idleOr waits until the only file is interrupted, or has no session any more.
func (w *harness) idleOr(t *testing.T, interrupted bool) {
	t.Helper()
	if !interrupted {
		w.idle(0)
		return
	}
	require.Eventually(t, func() bool { return w.status("f").State == state.Interrupted }, patience, tick)
}

func TestAWatchedFileIsOpenedThroughTheMount(t *testing.T) {
	w := newHarness(t)
	through := waiting(t, w, 3, 0)
	w.crash(goOn(w))
	f, mine := w.openBlind("f")
	_, err := mine.WriteAt(data(3*chunk, 2), 0)
	require.NoError(t, err)
	require.NoError(t, f.commit())
	first := w.uploaded("f")
	require.NoError(t, mine.Close())
	f.close()
	_, err = through.WriteAt([]byte("!"), 5)
	require.NoError(t, err)
	require.Equal(t, state.Writing, w.noResult("f").State)
	require.NoError(t, through.Close())
	w.idleOr(t, true)
	require.Equal(t, []string{first.FileID}, w.status("f").Superseded)
}

func TestAWatchedFileIsRemoved(t *testing.T) {
	w := newHarness(t)
	through := waiting(t, w, 3, 0)
	w.crash(goOn(w))
	w.remove("f")
	w.idle(0)
	require.NoError(t, through.Close())
	require.Empty(t, w.mem.Files())
}

func TestAnInterruptedFileIsNotRetriedWhileItIsWritten(t *testing.T) {
	w := newHarness(t)
	f := w.openFile("f")
	f.replace(data(3*chunk, 1))
	through, err := os.OpenFile(w.path("f"), os.O_RDWR, 0)
	require.NoError(t, err)
	defer through.Close()
	w.crash()
	require.Equal(t, state.Writing, w.status("f").State)
	require.NoError(t, through.Close())
	w.idleOr(t, true)
	again, err := os.OpenFile(w.path("f"), os.O_RDWR, 0)
	require.NoError(t, err)
	w.remount()
	require.ErrorContains(t, w.up.Retry("f"), "end that program first")
	require.NoError(t, again.Close())
	require.NoError(t, w.up.Retry("f"))
	w.settle()
	w.uploaded("f")
}

func TestTheContentOfTheCloseIsKnownExactly(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		acked  int
		change func(path string) error
		whole  bool
	}{
		"untouched":                    {0, func(string) error { return nil }, true},
		"ctime, nothing sent":          {0, func(p string) error { return os.Chmod(p, 0o640) }, false},
		"ctime, some sent":             {3, func(p string) error { return os.Chmod(p, 0o640) }, true},
		"mtime":                        {0, func(p string) error { return os.Chtimes(p, later, later) }, false},
		"mtime, some sent":             {3, func(p string) error { return os.Chtimes(p, later, later) }, false},
		"rewritten as it was":          {0, func(p string) error { return os.WriteFile(p, data(6*chunk, 1), 0o600) }, false},
		"rewritten, equally long":      {3, func(p string) error { return os.WriteFile(p, data(6*chunk, 2), 0o600) }, false},
		"rewritten, and the mtime put": {3, rewritten(6*chunk, 2), false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			sent(t, w, 6*chunk, c.acked)
			w.crash(goOn(w), func() { require.NoError(t, c.change(w.path("f"))) })
			w.settle()
			if c.whole {
				w.uploaded("f")
				return
			}
			require.Equal(t, state.Interrupted, w.noResult("f").State)
			require.Empty(t, w.mem.Files())
		})
	}
}

// rewritten writes n other bytes and puts the mtime back.
func rewritten(n int, seed byte) func(path string) error {
	return func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, data(n, seed), 0o600); err != nil {
			return err
		}
		return os.Chtimes(path, info.ModTime(), info.ModTime())
	}
}

func TestChangesOfMetadataAreNoChangesOfContent(t *testing.T) {
	at := time.Unix(1000, 5)
	for name, change := range map[string]struct {
		mtime bool
		do    func(path string) error
	}{
		"chmod":    {false, func(p string) error { return os.Chmod(p, 0o640) }},
		"setxattr": {false, func(p string) error { return unix.Setxattr(p, "user.test", []byte("x"), 0) }},
		"utimes":   {true, func(p string) error { return os.Chtimes(p, at, at) }},
		"link":     {false, func(p string) error { return os.Link(p, filepath.Join(filepath.Dir(p), "again-"+filepath.Base(p))) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, func(o *uploader.Options) {
				o.Names = uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}
			})
			w.mem.Fail(apitest.OpCreate, apitest.Before, refusal())
			require.Error(t, w.put("failed", data(chunk, 1)))
			require.NoError(t, w.put("held.tmp", data(chunk, 2)))
			require.NoError(t, w.put("excluded.log", data(chunk, 3)))
			require.NoError(t, w.put("completed", data(chunk, 4)))
			sent(t, w, 3*chunk, 0)
			for _, name := range []string{"f", "failed", "held.tmp", "excluded.log", "completed"} {
				w.changing(name, change.mtime, func() error { return change.do(w.path(name)) })
			}
			w.crash(goOn(w))
			require.NoError(t, w.up.Retry("held.tmp"))
			w.settle()
			for _, name := range []string{"f", "failed", "held.tmp", "completed"} {
				w.uploaded(name)
			}
			require.Equal(t, state.Excluded, w.status("excluded.log").State)
			require.Len(t, w.mem.Files(), 4)
		})
	}
}

func TestAForeignChangeDoesNotHideBehindAChangeOfMetadata(t *testing.T) {
	w := newHarness(t)
	sent(t, w, 3*chunk, 0)
	require.NoError(t, rewritten(3*chunk, 2)(w.path("f")))
	w.changing("f", false, func() error { return os.Chmod(w.path("f"), 0o640) })
	w.crash(goOn(w))
	w.settle()
	require.Equal(t, state.Interrupted, w.status("f").State)
}
