//go:build linux

package uploader_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

// sent sends n parts of the file f of size bytes, and leaves the others waiting.
func sent(t *testing.T, w *harness, size, n int) {
	t.Helper()
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f := w.openFile("f")
	f.replace(data(size, 1))
	f.CommitLater()
	for range n {
		gate.Pass()
	}
	require.Eventually(t, func() bool { return w.status("f").Acked == n }, patience, tick)
}

// goOn lets all parts pass from now on.
func goOn(w *harness) func() {
	return func() { w.mem.Hold(apitest.OpPart, apitest.Before).Open() }
}

func TestAcknowledgedPartsAreNotSentAgain(t *testing.T) {
	for name, restart := range map[string]func(*harness){
		"killed":    func(w *harness) { w.crash(goOn(w)) },
		"unmounted": func(w *harness) { w.stop(); w.closeAll(); goOn(w)(); w.start() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			sent(t, w, 6*chunk+1, 4)
			before := w.status("f")
			restart(w)
			w.settle()
			st := w.uploaded("f")
			require.Equal(t, before.UploadID, st.UploadID)
			require.Subset(t, st.PartIDs, before.PartIDs)
			require.Equal(t, 7, w.mem.Counts().Parts)
			require.Equal(t, 1, w.mem.Counts().Created)
		})
	}
}

func TestPartsThatDoNotMatchAreSentAgain(t *testing.T) {
	w := newHarness(t)
	sent(t, w, 6*chunk, 5)
	w.crash(goOn(w), func() {
		f, err := os.OpenFile(w.path("f"), os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("!"), chunk)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	})
	require.Equal(t, state.Interrupted, w.status("f").State, "it is not what its last close has left")
	require.NoError(t, w.up.Retry("f"))
	w.settle()
	w.uploaded("f")
	require.Equal(t, 1, w.mem.Counts().Created)
	require.LessOrEqual(t, w.mem.Counts().Parts, 7)
}

func TestAnUploadThatExpiredMeanwhile(t *testing.T) {
	for name, known := range map[string]bool{"as the journal knows": true, "as only the API knows": false} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			sent(t, w, 6*chunk, 3)
			w.crash(goOn(w), func() {
				w.mem.Expire("upload_0001")
				if known {
					require.NoError(t, uploader.AgeUploads(w.opts.StateDir))
				}
			})
			w.settle()
			w.uploaded("f")
			require.Equal(t, 2, w.mem.Counts().Created)
		})
	}
}

func TestAnotherPartSizeAtTheNextMount(t *testing.T) {
	w := newHarness(t)
	sent(t, w, 6*chunk, 3)
	before := w.status("f").PartIDs
	w.crash(goOn(w), func() { w.opts.PartSize = chunk * 3 / 2 })
	w.settle()
	st := w.status("f")
	require.Equal(t, state.Completed, st.State, st.Error)
	got, _ := w.mem.Content(st.FileID)
	require.Equal(t, data(6*chunk, 1), got)
	require.Subset(t, st.PartIDs, before)
	require.Equal(t, 1, w.mem.Counts().Created)

	// What differs is cut anew, and takes the place of the old parts.
	w.stop()
	require.NoError(t, os.WriteFile(w.path("f"), data(9*chunk, 2), 0o600))
	w.opts.PartSize = 4 * chunk
	w.start()
	require.NoError(t, w.up.Retry("f"))
	w.settle()
	w.idle(0)
	require.Len(t, w.status("f").PartIDs, 3, "as the journal remembers")
}

func TestAnOutageOutlivesTheDaemon(t *testing.T) {
	w := newHarness(t)
	down := make([]error, 200)
	for i := range down {
		down[i] = apitest.ServerError()
	}
	w.mem.Fail(apitest.OpPart, apitest.Before, down...)
	f := w.openFile("f")
	f.replace(data(chunk, 1))
	f.CommitLater()
	require.Eventually(t, func() bool { return w.status("f").State == state.Retrying }, patience, tick)
	f.close()
	w.remount()
	w.settle()
	w.uploaded("f")
}

func TestFailedIsTriedAgainAtTheNextMount(t *testing.T) {
	w := newHarness(t)
	w.mem.Fail(apitest.OpComplete, apitest.Before, apitest.Quota())
	require.Error(t, w.put("f", data(3*chunk, 1)))
	w.remount()
	w.settle()
	w.uploaded("f")
	require.Equal(t, 3, w.mem.Counts().Parts)
}

func TestFilesThatWereOpenAreInterrupted(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("rewritten", data(chunk, 1)))
	require.NoError(t, w.put("read", data(chunk, 2)))
	f, g, e := w.openFile("new"), w.openFile("rewritten"), w.openFile("empty")
	r := w.openFile("read")
	f.replace(data(chunk, 3))
	g.replace(data(chunk, 4))
	require.False(t, r.Dirty())
	require.False(t, e.Dirty())
	calls := w.mem.Counts().Calls
	w.crash()
	w.settle()
	for _, name := range []string{"new", "rewritten", "empty"} {
		st := w.noResult(name)
		require.Equal(t, state.Interrupted, st.State, name)
		require.Contains(t, st.Error, "uploadfs retry", name)
		require.Empty(t, st.UploadID, name)
	}
	require.Len(t, w.status("rewritten").Superseded, 1)
	w.uploaded("read")
	require.Equal(t, calls, w.mem.Counts().Calls, "nothing is sent by itself")

	for _, name := range []string{"new", "rewritten", "empty"} {
		require.NoError(t, w.up.Retry(name))
	}
	w.settle()
	w.uploaded("new")
	w.uploaded("rewritten")
	require.Equal(t, state.Empty, w.status("empty").State)
}

func TestCompletedFilesAreComparedWithTheTree(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		change func(path string) error
		same   bool
	}{
		"untouched":             {func(string) error { return nil }, true},
		"touched":               {func(p string) error { return os.Chtimes(p, later, later) }, true},
		"rewritten as it was":   {func(p string) error { return os.WriteFile(p, data(3*chunk, 1), 0o600) }, true},
		"appended to":           {func(p string) error { return os.Truncate(p, 3*chunk+1) }, false},
		"shorter":               {func(p string) error { return os.Truncate(p, 3*chunk-1) }, false},
		"emptied":               {func(p string) error { return os.Truncate(p, 0) }, false},
		"another, equally long": {func(p string) error { return os.WriteFile(p, data(3*chunk, 2), 0o600) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			require.NoError(t, w.put("f", data(3*chunk, 1)))
			before := w.uploaded("f")
			for range 2 {
				w.stop()
				require.NoError(t, c.change(w.path("f")))
				w.start()
				w.settle()
				if c.same {
					require.Zero(t, w.up.Sessions())
					require.Equal(t, before.FileID, w.uploaded("f").FileID)
					continue
				}
				st := w.noResult("f")
				require.Equal(t, state.Interrupted, st.State)
				require.Equal(t, []string{before.FileID}, st.Superseded)
				require.Empty(t, st.UploadID)
				require.Empty(t, st.PartIDs)
			}
			require.Len(t, w.mem.Files(), 1)
		})
	}
}

func TestFilesMadeBehindTheMountAreKept(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("known", data(chunk, 1)))
	w.stop()
	require.NoError(t, os.MkdirAll(w.path("a/b"), 0o700))
	require.NoError(t, os.WriteFile(w.path("a/b/new"), data(chunk, 2), 0o600))
	require.NoError(t, os.WriteFile(w.path("nothing"), nil, 0o600))
	require.NoError(t, os.Symlink("known", w.path("link")))
	require.NoError(t, os.Link(w.path("a/b/new"), w.path("a/b/new2")))
	w.start()
	w.settle()
	require.Equal(t, state.Interrupted, w.status("a/b/new").State)
	require.Equal(t, state.Empty, w.status("nothing").State)
	require.Zero(t, w.up.Sessions(), "the journal has it")
	require.NoError(t, w.up.Retry("a/b/new2"))
	w.settle()
	w.uploaded("a/b/new")
}

func TestRowsWithoutAFileAreForgotten(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("done", data(chunk, 1)))
	require.NoError(t, w.put("held.tmp", data(chunk, 1)))
	keys := []string{"done", "held.tmp"}
	w.stop()
	for _, name := range keys {
		require.NoError(t, os.Remove(w.path(name)))
	}
	w.start()
	snap, err := w.up.Snapshot()
	require.NoError(t, err)
	require.Empty(t, snap.Counts)
	require.Zero(t, w.up.Sessions())
}

func TestAChangedFileWhateverItsState(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.Names = uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}
	})
	names := []string{"held.tmp", "excluded.log", "failed", "empty", "uploading"}
	w.mem.Fail(apitest.OpCreate, apitest.Before, refusal())
	require.Error(t, w.put("failed", data(chunk, 1)))
	require.NoError(t, w.put("held.tmp", data(chunk, 1)))
	require.NoError(t, w.put("excluded.log", data(chunk, 1)))
	require.NoError(t, w.put("empty", nil))
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f := w.openFile("uploading")
	f.replace(data(chunk, 1))
	f.CommitLater()
	gate.Await(t, 1)
	w.crash(goOn(w), func() {
		for _, name := range names {
			require.NoError(t, os.WriteFile(w.path(name), data(chunk+1, 2), 0o600))
		}
	})
	w.settle()
	for _, name := range names {
		st := w.status(name)
		require.Equal(t, state.Interrupted, st.State, name)
		require.EqualValues(t, chunk+1, st.Size)
	}
	for _, name := range names {
		if name == "excluded.log" {
			require.ErrorContains(t, w.up.Retry(name), "its name is excluded")
			continue
		}
		require.NoError(t, w.up.Retry(name))
	}
	w.settle()
	for _, name := range names {
		if name != "excluded.log" {
			w.uploaded(name)
		}
	}
	require.Equal(t, state.Excluded, w.status("excluded.log").State)
}

func TestAFileThatMovedBehindTheMount(t *testing.T) {
	w := newHarness(t)
	sent(t, w, 3*chunk, 1)
	w.crash(goOn(w), func() {
		require.NoError(t, os.Mkdir(w.path("d"), 0o700))
		require.NoError(t, os.Rename(w.path("f"), w.path("d/g")))
	})
	w.settle()
	require.Equal(t, "d/g", w.uploaded("d/g").Path)
}

func TestCloseWhileEverythingIsBusy(t *testing.T) {
	for _, op := range []apitest.Op{apitest.OpCreate, apitest.OpPart, apitest.OpComplete} {
		for _, stage := range []apitest.Stage{apitest.Before, apitest.MidBody, apitest.After} {
			if stage == apitest.MidBody && op != apitest.OpPart {
				continue
			}
			w := newHarness(t)
			gate := w.mem.Hold(op, stage)
			var answers []*answer
			names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
			for i, name := range names {
				f := w.openFile(name)
				f.replace(data(3*chunk, byte(i)))
				answers = append(answers, f.committing())
			}
			gate.Await(t, 1)
			w.stop()
			for _, a := range answers {
				require.Equal(t, api.Stopped, api.KindOf(a.await(t)))
			}
			for f := range w.open {
				f.close()
			}
			gate.Open()
			w.start()
			w.settle()
			for _, name := range names {
				if w.status(name).State == state.Interrupted {
					require.NoError(t, w.up.Retry(name)) // its close had not come yet
				}
			}
			w.settle()
			for _, name := range names {
				w.uploaded(name)
			}
			w.idle(0)
		}
	}
}

func TestDrain(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f, g := w.openFile("f"), w.openFile("g")
	f.replace(data(chunk, 1))
	g.replace(data(chunk, 2))
	f.CommitLater()
	f.close()
	gate.Await(t, 1)
	left := make(chan []string, 1)
	ctx, cancel := timeout()
	defer cancel()
	go func() { left <- w.up.Drain(ctx) }()
	ended, stop := timeout()
	stop()
	require.Equal(t, []string{"f", "g"}, w.up.Drain(ended))
	gate.Open()
	g.CommitLater()
	g.close()
	require.Empty(t, <-left)
	w.uploaded("f")
	w.uploaded("g")
}
