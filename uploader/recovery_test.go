//go:build linux

package uploader_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/oldmount"
	"uploadfs/uploader/state"
)

// behind lets the comparison of tree and journal of the next Open wait until release.
func behind(w *harness) (release func()) {
	gate := make(chan struct{})
	w.opts.HeadStart, w.opts.CompareAfter = -1, gate
	release = sync.OnceFunc(func() { close(gate) })
	w.t.Cleanup(release)
	return release
}

// compared waits until the tree has been compared with the journal.
func compared(t *testing.T, up *uploader.Uploader) uploader.Snapshot {
	t.Helper()
	var snap uploader.Snapshot
	require.Eventually(t, func() bool {
		var err error
		snap, err = up.Snapshot()
		require.NoError(t, err)
		return snap.Comparing == nil
	}, patience, tick)
	return snap
}

// anything leaves a tree in which there is a file for each way in which it can differ
// from its record, and returns their paths.
func anything(t *testing.T, w *harness) (paths []string) {
	for _, name := range []string{"same", "touched", "changed", "removed", "replaced", "moved", "linked", "swapped", "d/moved with it"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(w.path(name)), 0o700))
		require.NoError(t, w.put(name, data(2*chunk, byte(len(name)))))
	}
	stateful(t, w)
	w.openFile("open").replace(data(chunk, 7))
	w.openFile("open and empty")
	w.mem.Hold(apitest.OpCreate, apitest.Before) // parts are held already: what is sent stays on its way
	later := time.Now().Add(time.Hour)
	w.crash(func() {
		write := func(name string, seed byte) {
			require.NoError(t, os.WriteFile(w.path("new"), data(2*chunk, seed), 0o600))
			require.NoError(t, os.Rename(w.path("new"), w.path(name)))
		}
		require.NoError(t, os.Chtimes(w.path("touched"), later, later))
		require.NoError(t, os.Truncate(w.path("changed"), 5))
		require.NoError(t, os.Remove(w.path("removed")))
		write("replaced", 9)
		require.NoError(t, os.Rename(w.path("moved"), w.path("is here")))
		require.NoError(t, os.Link(w.path("linked"), w.path("d/link")))
		require.NoError(t, os.Remove(w.path("linked")))
		require.NoError(t, os.Rename(w.path("swapped"), w.path("old swapped")))
		write("swapped", 10)
		require.NoError(t, os.Rename(w.path("d"), w.path("renamed")))
		require.NoError(t, os.WriteFile(w.path("unknown"), data(chunk, 8), 0o600))
		require.NoError(t, os.WriteFile(w.path("unknown and empty"), nil, 0o600))
		behind(w) // nothing is compared before the paths are known
	})
	w.stop()
	require.NoError(t, w.tree.Walk(func(rel string, _ backing.Info) error {
		paths = append(paths, rel)
		return nil
	}))
	return paths
}

// restored starts the next Uploader from a copy of the journal.
func (w *harness) restored(from string) {
	w.t.Helper()
	w.stop()
	next, err := os.MkdirTemp(w.root, "state")
	require.NoError(w.t, err)
	require.NoError(w.t, os.CopyFS(next, os.DirFS(from)))
	w.opts.StateDir = next
	w.start()
}

func TestAFileIsTheSameWhetherItIsComparedFirstOrWhenItIsAskedFor(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.Names = uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}
	})
	paths := anything(t, w)
	from := w.opts.StateDir
	all := func() map[string]string {
		as := map[string]string{}
		for _, path := range paths {
			st := *w.status(path)
			as[path] = fmt.Sprint(st.State, st.Size, st.FileID, st.UploadID, st.PartIDs, st.PartsDone(), st.Superseded, st.SupersededCount, st.Earlier, st.Error)
		}
		return as
	}
	w.opts.HeadStart, w.opts.CompareAfter = patience, nil
	w.restored(from)
	want := all()
	counts := compared(t, w.up).Counts
	for name, s := range map[string]state.State{
		"same": state.Completed, "touched": state.Completed, "changed": state.Interrupted, "replaced": state.Interrupted,
		"is here": state.Completed, "renamed/link": state.Completed, "old swapped": state.Completed, "swapped": state.Interrupted,
		"renamed/moved with it": state.Completed, "unknown": state.Interrupted, "open": state.Interrupted,
		"f": state.Uploading, "renamed/held.tmp": state.Held,
	} {
		require.True(t, strings.HasPrefix(want[name], string(s)), "%s: %s", name, want[name])
	}

	release := behind(w)
	w.restored(from)
	snap, err := w.up.Snapshot()
	require.NoError(t, err)
	require.NotNil(t, snap.Comparing, "it says that the states may change")
	require.Equal(t, want, all(), "as asked for")
	release()
	require.Equal(t, counts, compared(t, w.up).Counts, "what has no file any more is forgotten")
	require.Equal(t, want, all(), "after the rest has been compared")

	behind(w)
	w.restored(from)
	require.Equal(t, want["f"], all()["f"])
	w.stop() // in the middle of it
	w.opts.HeadStart, w.opts.CompareAfter = patience, nil
	w.start()
	require.Equal(t, want, all(), "a comparison that was cut short goes on at the next mount")
}

func TestAMountIsUsedBeforeItsTreeIsCompared(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) { o.Names = uploader.NamePolicy{HoldFor: time.Hour} })
	for _, name := range []string{"rewritten", "removed", "touched", "d/a"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(w.path(name)), 0o700))
		require.NoError(t, w.put(name, data(chunk, 1)))
	}
	require.NoError(t, w.put("held.tmp", data(chunk, 2)))
	sent(t, w, 3*chunk, 1)
	var release func()
	w.crash(goOn(w), func() {
		require.NoError(t, os.WriteFile(w.path("unknown"), data(chunk, 3), 0o600))
		require.NoError(t, os.WriteFile(w.path("d/unknown"), data(chunk, 3), 0o600))
		release = behind(w)
	})
	require.NoError(t, w.put("new", data(chunk, 4)))
	require.NoError(t, w.put("rewritten", data(chunk, 5)))
	writing := w.openFile("writing")
	writing.replace(data(chunk, 6))
	w.remove("removed")
	w.remove("f")
	require.NoError(t, w.up.Retry("unknown"))
	w.rename("held.tmp", "held")
	at := time.Unix(1000, 5)
	w.changing("touched", true, func() error { return os.Chtimes(w.path("touched"), at, at) })
	require.NoError(t, os.Rename(w.path("d"), w.path("e")))
	w.up.Renamed("d", "e", backing.Key{}, true)
	ended, stop := timeout()
	stop()
	require.Contains(t, w.up.Drain(ended), "writing")

	release()
	snap := compared(t, w.up)
	require.Equal(t, state.Writing, w.status("writing").State, "it is of this mount")
	require.NoError(t, writing.commit())
	writing.close()
	w.settle()
	for _, name := range []string{"new", "rewritten", "writing", "unknown", "held", "touched", "e/a"} {
		w.uploaded(name)
	}
	require.Equal(t, state.Interrupted, w.status("e/unknown").State)
	require.NotContains(t, snap.Counts, state.Empty)
	require.Eventually(t, func() bool { return w.mem.Counts().Cancelled == 1 }, patience, tick, "the Upload of f")
}

// moveDir moves a directory as a rename through the mount does.
func (w *harness) moveDir(from, to string) {
	w.t.Helper()
	renamed := w.up.Renaming()
	require.NoError(w.t, os.Rename(w.path(from), w.path(to)))
	w.up.Renamed(from, to, backing.Key{}, true)
	renamed()
}

func TestAFileIsFollowedWhoseDirectoryMovesWhileItIsCompared(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, os.Mkdir(w.path("d"), 0o700))
	require.NoError(t, w.put("d/changed", data(chunk, 1)))
	sent(t, w, 3*chunk, 1)
	w.rename("f", "d/f")
	var release func()
	w.crash(goOn(w), func() {
		require.NoError(t, os.Truncate(w.path("d/changed"), 5))
		release = behind(w)
	})
	for i, name := range []string{"changed", "f"} { // without and with a session
		from, to := []string{"d", "e", "g"}[i], []string{"d", "e", "g"}[i+1]
		key := w.key(from + "/" + name)
		require.NoError(t, w.up.CompareWhile(key, func() { w.moveDir(from, to) }))
	}
	require.Equal(t, state.Interrupted, w.status("g/changed").State)
	require.Equal(t, "g/f", w.status("g/f").Path)
	snap, err := w.up.Snapshot()
	require.NoError(t, err)
	require.Equal(t, "g/changed", snap.Files[0].Path)
	release()
	require.Equal(t, "g/changed", compared(t, w.up).Files[0].Path)
	w.settle()
	require.Equal(t, "g/f", w.uploaded("g/f").Path)
}

func TestNoRecordIsForgottenWhileItsDirectoryMoves(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, os.MkdirAll(w.path("d"), 0o700))
	require.NoError(t, w.put("d/f", data(chunk, 1)))
	st := w.uploaded("d/f")
	var release func()
	w.crash(func() { release = behind(w) })
	renamed := w.up.Renaming()
	outside := filepath.Join(w.root, "outside") // the walk does not find it in the tree
	require.NoError(t, os.Rename(w.path("d"), outside))
	release()
	require.Eventually(t, func() bool {
		snap, err := w.up.Snapshot()
		require.NoError(t, err)
		return snap.Comparing == nil || w.up.AwaitsRename()
	}, patience, tick)
	require.NoError(t, os.Rename(outside, w.path("e")))
	w.up.Renamed("d", "e", backing.Key{}, true)
	renamed()
	compared(t, w.up)
	require.Equal(t, st.FileID, w.uploaded("e/f").FileID)
}

func TestWhatTheComparisonInterruptsIsOfAnEarlierMount(t *testing.T) {
	var mu sync.Mutex
	var ended []string
	w := newHarness(t, func(o *uploader.Options) {
		o.Ended = func(st *uploader.Status) {
			mu.Lock()
			defer mu.Unlock()
			if st.State == state.Interrupted {
				ended = append(ended, st.Path)
			}
		}
	})
	require.NoError(t, w.put("changed", data(chunk, 1)))
	w.openFile("open").replace(data(chunk, 2))
	w.crash(func() {
		require.NoError(t, os.WriteFile(w.path("unknown"), data(chunk, 3), 0o600))
		require.NoError(t, os.Link(w.path("unknown"), w.path("unknown, again")))
		require.NoError(t, os.Truncate(w.path("changed"), 5))
	})
	snap := compared(t, w.up)
	require.Len(t, snap.Files, 3)
	for _, st := range snap.Files {
		require.True(t, st.Earlier, st.Path)
	}
	mu.Lock()
	require.Len(t, ended, 3, "each of them once")
	mu.Unlock()

	// A file without a session is known by a name that it has.
	st := w.status("unknown")
	path := snap.Files[2].Path
	require.NoError(t, os.Remove(w.path(path)))
	w.up.Removed(w.key(map[string]string{"unknown": "unknown, again", "unknown, again": "unknown"}[path]), path, false)
	snap, err := w.up.Snapshot()
	require.NoError(t, err)
	require.NotEqual(t, path, snap.Files[2].Path)
	require.True(t, snap.Files[2].Earlier)
	require.Equal(t, st.State, snap.Files[2].State)

	// What is interrupted now is of this mount, also when its session has left.
	f := w.openFile("open")
	f.writeAt(0, []byte("x"))
	f.Interrupt("a test says so")
	f.close()
	require.Zero(t, w.up.Sessions())
	require.False(t, w.status("open").Earlier)
	w.rename("open", "renamed")
	require.False(t, w.status("renamed").Earlier)
}

func TestADrainWaitsForTheComparison(t *testing.T) {
	w := newHarness(t)
	sent(t, w, 3*chunk, 1)
	var release func()
	w.crash(goOn(w), func() { release = behind(w) })
	ended, stop := timeout()
	stop()
	require.Equal(t, []string{"f"}, w.up.Drain(ended), "it is known to be on its way")
	release()
	ctx, cancel := timeout()
	defer cancel()
	require.Empty(t, w.up.Drain(ctx))
	w.uploaded("f")
}

func TestALargeTreeCostsNoMemory(t *testing.T) {
	n := 2000
	if os.Getenv("UPLOADFS_TEST_FULL") != "" {
		n = 200_000
	}
	for _, was := range []state.State{state.Completed, state.Interrupted, ""} {
		t.Run("state "+string(was), func(t *testing.T) {
			w := newHarness(t, func(o *uploader.Options) { o.SyncOnClose = true })
			w.stop()
			require.NoError(t, w.tree.Close())
			require.NoError(t, os.RemoveAll(w.opts.StateDir))
			require.NoError(t, os.Mkdir(w.opts.StateDir, 0o700))
			require.NoError(t, oldmount.Make(w.opts.StateDir, n, was, w.opts.BootID))
			require.NoError(t, os.RemoveAll(w.path("")))
			require.NoError(t, os.Rename(filepath.Join(w.opts.StateDir, oldmount.Tree), w.path("")))
			var err error
			w.tree, err = backing.Open(w.path(""))
			require.NoError(t, err)
			w.opts.Tree, w.opts.HeadStart = w.tree, -1
			w.start()
			snap := compared(t, w.up)
			want := was
			if was == "" {
				want = state.Interrupted
			}
			require.Equal(t, map[state.State]int{want: n}, snap.Counts)
			require.Zero(t, w.up.Sessions(), "the journal has them")
			require.Equal(t, want, w.status(oldmount.Path(n/2)).State)
			if want == state.Interrupted {
				require.NoError(t, w.up.Retry(oldmount.Path(7)))
				w.settle()
				w.uploaded(oldmount.Path(7))
			}
		})
	}
}
