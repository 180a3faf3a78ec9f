//go:build linux

package uploader_test

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// names sets the policy of a world.
func names(p uploader.NamePolicy) func(*uploader.Options) {
	return func(o *uploader.Options) { o.Names = p }
}

// patient holds files for as long as any test runs.
var patient = names(uploader.NamePolicy{HoldFor: time.Hour})

// rename renames in the tree and tells the Uploader.
func (w *harness) rename(from, to string) {
	w.t.Helper()
	info, err := w.tree.Stat(from)
	require.NoError(w.t, err)
	old, err := w.tree.Stat(to)
	replaces := err == nil
	at := from
	require.NoError(w.t, w.up.ChangeMetadata(func() error {
		at = to
		return os.Rename(w.path(from), w.path(to))
	}, uploader.MetadataChange{Key: info.Key, Stat: func() (backing.Info, error) { return w.tree.Stat(at) }}))
	if replaces {
		w.up.Removed(old.Key, to, true)
	}
	w.up.Renamed(from, to, info.Key, !info.Regular())
}

func TestAHeldFileIsSentUnderItsFinalName(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("f.txt.part", data(2*chunk, 1)))
	require.Equal(t, state.Held, w.noResult("f.txt.part").State)
	require.Empty(t, w.mem.Counts().Calls)
	w.rename("f.txt.part", "f.txt.tmp")
	require.Equal(t, state.Held, w.status("f.txt.tmp").State, "still unfinished")
	w.rename("f.txt.tmp", "f.txt")
	w.settle()
	require.Equal(t, "f.txt", w.uploaded("f.txt").Filename)
	w.idle(0)
}

func TestAHeldFileIsRenamedWhileItIsOpen(t *testing.T) {
	w := newHarness(t, patient)
	f := w.openFile("f.tmp")
	f.replace(data(2*chunk, 1))
	require.NoError(t, f.commit())
	w.rename("f.tmp", "f")
	require.Equal(t, state.Held, w.status("f").State, "its close will see to it")
	f.close()
	w.settle()
	w.uploaded("f")
}

func TestAHeldFileThatIsNotRenamed(t *testing.T) {
	w := newHarness(t, names(uploader.NamePolicy{HoldFor: time.Millisecond}))
	f := w.openFile("f.tmp")
	f.replace(data(2*chunk, 1))
	require.NoError(t, f.commit())
	f.close()
	w.idle(0)
	w.uploaded("f.tmp")
}

func TestAHeldFileThatIsOpenAgainIsNotSent(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("f.tmp", data(2*chunk, 1)))
	g := w.openFile("f.tmp")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, []string{"f.tmp"}, w.up.Drain(ended))
	require.Equal(t, state.Held, w.status("f.tmp").State)
	g.close()
	require.Equal(t, []string{"f.tmp"}, w.up.Drain(ended))
	w.settle()
	w.uploaded("f.tmp")
}

func TestDrainSendsWhatIsHeld(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("f.tmp", data(2*chunk, 1)))
	require.NoError(t, w.put("g.tmp", data(2*chunk, 2)))
	require.NoError(t, w.up.Retry("g.tmp"))
	w.settle()
	w.uploaded("f.tmp")
	w.uploaded("g.tmp")
}

func TestAHeldFileIsHeldAfterARemount(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("f.tmp", data(2*chunk, 1)))
	w.remount()
	require.Equal(t, state.Held, w.status("f.tmp").State)
	w.rename("f.tmp", "f")
	w.settle()
	w.uploaded("f")
}

func TestAHeldFileIsChanged(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("f.tmp", data(2*chunk, 1)))
	require.NoError(t, w.put("f.tmp", data(3*chunk, 2)))
	require.Equal(t, state.Held, w.status("f.tmp").State)
	require.NoError(t, w.put("f.tmp", nil))
	require.Equal(t, state.Empty, w.status("f.tmp").State)
	w.idle(0)
}

func TestHoldNothing(t *testing.T) {
	w := newHarness(t, names(uploader.NamePolicy{NoHold: true}))
	require.NoError(t, w.put("f.tmp", data(2*chunk, 1)))
	w.uploaded("f.tmp")
}

func TestExcludedFilesAreNeverSent(t *testing.T) {
	w := newHarness(t, names(uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}))
	require.NoError(t, w.put("a.log", data(2*chunk, 1)))
	require.NoError(t, w.put("b.tmp", data(2*chunk, 2)))
	w.rename("b.tmp", "b.log")
	w.settle()
	for _, name := range []string{"a.log", "b.log"} {
		require.Equal(t, state.Excluded, w.noResult(name).State)
		require.ErrorContains(t, w.up.Retry(name), "excluded")
	}
	w.idle(0)
	w.remount()
	w.settle()
	require.Equal(t, state.Excluded, w.status("a.log").State)
	require.Empty(t, w.mem.Counts().Calls)

	w.rename("a.log", "a.tmp")
	require.Equal(t, state.Held, w.status("a.tmp").State)
	w.rename("a.tmp", "a.txt")
	w.rename("b.log", "b.txt")
	w.settle()
	w.uploaded("a.txt")
	w.uploaded("b.txt")
}

func TestExcludedWhileItIsSent(t *testing.T) {
	w := newHarness(t, names(uploader.NamePolicy{Exclude: []string{"*.log"}}))
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f := w.openFile("a")
	f.replace(data(2*chunk, 1))
	done := f.committing()
	gate.Await(t, 1)
	w.rename("a", "a.log")
	f.writeAt(0, []byte("more"))
	require.NoError(t, f.commit())
	require.NoError(t, done.await(t))
	gate.Open()
	f.close()
	w.idle(0)
	require.Equal(t, state.Excluded, w.status("a.log").State)
	require.Empty(t, w.mem.Files())
	require.Zero(t, w.log.count("failed"))
}

func TestRenamingACompletedFileKeepsItsFile(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("a", data(2*chunk, 1)))
	before := w.uploaded("a")
	w.rename("a", "b")
	after := w.uploaded("b")
	require.Equal(t, before.FileID, after.FileID)
	require.Equal(t, before.PartIDs, after.PartIDs)
	w.idle(0)
	require.NoError(t, os.Mkdir(w.path("d"), 0o700))
	w.rename("b", "d/b")
	w.rename("d", "e")
	w.remount()
	w.settle()
	require.Equal(t, before.FileID, w.uploaded("e/b").FileID)
	require.Len(t, w.mem.Files(), 1)
}

func TestRenamedDirectoriesTakeTheirSessionsWithThem(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, os.MkdirAll(w.path("d/sub"), 0o700))
	require.NoError(t, os.MkdirAll(w.path("dd"), 0o700))
	for _, name := range []string{"d/sub/a.tmp", "dd/a.tmp"} {
		require.NoError(t, w.put(name, data(chunk, 1)))
	}
	f := w.openFile("d/open")
	f.replace(data(chunk, 2))
	w.rename("d", "100%_e\xff")
	require.Equal(t, []string{"100%_e\xff/open", "100%_e\xff/sub/a.tmp", "dd/a.tmp"}, w.paths())
	require.NoError(t, f.commit())
	f.close()
	w.uploaded("100%_e\xff/open")
	w.remount()
	require.Equal(t, []string{"100%_e\xff/sub/a.tmp", "dd/a.tmp"}, w.paths())
}

// paths are those that a snapshot names.
func (w *harness) paths() []string {
	w.t.Helper()
	snap, err := w.up.Snapshot()
	require.NoError(w.t, err)
	var all []string
	for _, f := range snap.Files {
		all = append(all, f.Path)
	}
	return all
}

func TestTwoDirectoriesChangePlaces(t *testing.T) {
	w := newHarness(t, names(uploader.NamePolicy{HoldFor: time.Hour, Hold: []string{"a/*", "b/*"}}))
	require.NoError(t, os.Mkdir(w.path("a"), 0o700))
	require.NoError(t, os.Mkdir(w.path("b"), 0o700))
	require.NoError(t, w.put("a/1", data(chunk, 1)))
	require.NoError(t, w.put("b/2", data(chunk, 2)))
	w.exchange("a", "b")
	require.Equal(t, []string{"a/2", "b/1"}, w.paths())
	require.Empty(t, w.mem.Counts().Calls, "both are held at both places")
	for path, key := range map[string]backing.Key{"a/2": w.key("a/2"), "b/1": w.key("b/1")} {
		recorded, _, err := w.up.Recorded(key)
		require.NoError(t, err)
		require.Equal(t, state.Held, recorded)
		require.Equal(t, path, w.up.Status(key, path).Path)
	}
}

func (w *harness) exchange(a, b string) {
	w.t.Helper()
	require.NoError(w.t, unix.Renameat2(unix.AT_FDCWD, w.path(a), unix.AT_FDCWD, w.path(b), unix.RENAME_EXCHANGE))
	w.up.Exchanged(a, b)
}

func TestAFileAndADirectoryChangePlaces(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, os.Mkdir(w.path("d"), 0o700))
	require.NoError(t, w.put("d/f.tmp", data(chunk, 1)))
	require.NoError(t, w.put("g.tmp", data(chunk, 2)))
	w.exchange("g.tmp", "d")
	w.settle()
	w.uploaded("d")
	w.uploaded("g.tmp/f.tmp")
	require.Equal(t, "d", w.status("d").Path)
}

func TestTwoFilesChangePlaces(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("a.tmp", data(chunk, 1)))
	require.NoError(t, w.put("b", data(chunk, 2)))
	w.exchange("a.tmp", "b")
	w.settle()
	require.Equal(t, "b", w.uploaded("b").Filename, "it was held until then")
	require.Equal(t, "b", w.uploaded("a.tmp").Filename)
	require.Equal(t, "a.tmp", w.uploaded("a.tmp").Path)
}

func TestRemovedWhileItIsSent(t *testing.T) {
	for name, at := range map[string]struct {
		op    apitest.Op
		stage apitest.Stage
	}{
		"creating":   {apitest.OpCreate, apitest.Before},
		"created":    {apitest.OpCreate, apitest.After},
		"sending":    {apitest.OpPart, apitest.MidBody},
		"completing": {apitest.OpComplete, apitest.Before},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			gate := w.mem.Hold(at.op, at.stage)
			f := w.openFile("f")
			f.replace(data(3*chunk, 1))
			done := f.committing()
			gate.Await(t, 1)
			w.remove("f")
			require.Equal(t, api.Removed, api.KindOf(done.await(t)))
			state, _, err := w.up.Recorded(f.key)
			require.NoError(t, err)
			require.Empty(t, state, "the journal has forgotten it")
			require.False(t, f.Dirty())
			f.writeAt(0, []byte("written to a file without a name"))
			require.NoError(t, f.commit())
			gate.Open()
			f.close()
			w.idle(0)
			if at.op == apitest.OpComplete {
				require.Len(t, w.mem.Files(), 1, "a Complete under way is not cut off")
			} else {
				require.Empty(t, w.mem.Files())
			}
			require.Empty(t, w.deleted(), "a deleted file's pages are kept")
		})
	}
}

// TestRemovedBetweenTwoAttempts: Complete is refused for a while, and has certainly
// done nothing. It is not repeated for a file that is gone.
func TestRemovedBetweenTwoAttempts(t *testing.T) {
	w := newHarness(t)
	var refused atomic.Int64
	w.mem.Hook(func(_ context.Context, c apitest.Call) error {
		if c.Op != apitest.OpComplete || c.Stage != apitest.Before {
			return nil
		}
		refused.Add(1)
		return apitest.RateLimit(time.Millisecond)
	})
	f := w.openFile("f")
	f.replace(data(chunk, 1))
	done := f.committing()
	require.Eventually(t, func() bool { return refused.Load() > 1 }, patience, tick)
	w.remove("f")
	require.Equal(t, api.Removed, api.KindOf(done.await(t)))
	f.close()
	w.idle(0)
	require.Empty(t, w.mem.Files())
	require.Eventually(t, func() bool { return len(w.mem.Uploads("pending")) == 0 }, patience, tick, "it is cancelled")
}

// deleted are the descriptors that lead to files of the tree.
func (w *harness) deleted() []string { return descriptors(w.t, w.path("")+"/") }

// remove unlinks a file's name, and tells the Uploader.
func (w *harness) remove(rel string) {
	w.t.Helper()
	key := w.key(rel)
	f, err := os.Open(w.path(rel))
	require.NoError(w.t, err)
	defer f.Close()
	require.NoError(w.t, os.Remove(w.path(rel)))
	info, err := backing.StatFd(int(f.Fd()))
	require.NoError(w.t, err)
	w.up.Removed(key, rel, info.Nlink == 0)
}

func TestTheUploadOfARemovedFileIsCancelled(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	cancelled := make(chan struct{})
	w.mem.Hook(func(_ context.Context, c apitest.Call) error {
		if c.Op == apitest.OpCancel && c.Stage == apitest.After {
			close(cancelled)
		}
		return nil
	})
	f := w.openFile("f")
	f.replace(data(3*chunk, 1))
	f.CommitLater()
	gate.Await(t, 1)
	w.remove("f")
	select {
	case <-cancelled:
	case <-time.After(patience):
		t.Fatal("not cancelled")
	}
	require.Len(t, w.mem.Uploads("cancelled"), 1)
	f.close()
	w.idle(0)
	require.Empty(t, w.deleted(), "a deleted file's pages are kept")
}

func TestRemovedWithoutASession(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("f", data(chunk, 1)))
	key := w.key("f")
	w.remove("f")
	state, _, err := w.up.Recorded(key)
	require.NoError(t, err)
	require.Empty(t, state)
	require.Empty(t, w.mem.Uploads("cancelled"))
	require.Len(t, w.mem.Files(), 1)
	w.up.Removed(backing.Key{Ino: 12345}, "never known", true)
}

func TestRemovedHeldAndFailedFilesLeaveNothing(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("a.tmp", data(chunk, 1)))
	w.mem.Fail(apitest.OpCreate, apitest.Before, refusal())
	require.Error(t, w.put("b", data(chunk, 1)))
	f := w.openFile("c")
	f.replace(data(chunk, 2))
	f.Interrupt("killed")
	f.close()
	w.idle(2) // the journal has the interrupted one
	for _, name := range []string{"a.tmp", "b", "c"} {
		w.remove(name)
	}
	w.idle(0)
	snap, err := w.up.Snapshot()
	require.NoError(t, err)
	require.Empty(t, snap.Counts)
}

func TestAHardLinkOutlivesTheFirstName(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, w.put("a.tmp", data(chunk, 1)))
	require.NoError(t, os.Link(w.path("a.tmp"), w.path("a")))
	w.up.Linked(w.key("a"), "a")
	w.settle()
	require.Equal(t, "a", w.uploaded("a").Filename)

	f := w.openFile("a")
	f.writeAt(0, []byte("more"))
	w.remove("a")
	require.Equal(t, "a.tmp", w.status("a.tmp").Path)
	require.True(t, f.Dirty())
	require.NoError(t, f.commit())
	f.close()
	require.Equal(t, state.Held, w.status("a.tmp").State, "that is the name it has now")
	w.remove("a.tmp")
	w.idle(0)
}

func TestAFileGetsItsFirstNameLate(t *testing.T) {
	link := func(w *harness, f *file, rel string) {
		// A descriptor's file cannot be linked again once its name is
		// gone, but one made with O_TMPFILE can.
		require.NoError(w.t, unix.Linkat(unix.AT_FDCWD, procName(f.f), unix.AT_FDCWD, w.path(rel), unix.AT_SYMLINK_FOLLOW))
		w.up.Renamed("", rel, f.key, false)
	}
	w := newHarness(t)
	f := w.unnamed()
	f.replace(data(2*chunk, 1))
	require.NoError(t, f.commit(), "it has no name yet")
	require.False(t, f.Dirty())
	link(w, f, "f")
	require.True(t, f.Dirty())
	recorded, open, err := w.up.Recorded(f.key)
	require.NoError(t, err)
	require.Equal(t, state.Writing, recorded)
	require.True(t, open)
	require.NoError(t, f.commit())
	f.close()
	w.uploaded("f")

	g := w.unnamed()
	g.close()
	w.idle(0)
}

func TestAnUnnamedFileIsNeverSent(t *testing.T) {
	w := newHarness(t)
	f := w.tmpfile()
	f.replace(data(2*chunk, 1))
	require.NoError(t, f.commit())
	f.CommitLater()
	f.SendFull()
	f.close()
	w.idle(0)
	require.Empty(t, w.mem.Counts().Calls)
}

func TestMtimeAloneIsNoChange(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpComplete, apitest.Before)
	touch := func(at time.Time) {
		w.changing("f", true, func() error { return os.Chtimes(w.path("f"), at, at) })
	}
	f := w.openFile("f")
	f.replace(data(2*chunk, 1))
	done := f.committing()
	gate.Await(t, 1)
	touch(time.Unix(1000, 0))
	gate.Open()
	require.NoError(t, done.await(t))
	f.close()
	w.uploaded("f")
	w.idle(0)
	touch(time.Unix(2000, 0))
	w.remount()
	require.Zero(t, w.up.Sessions())
	w.uploaded("f")
	require.Len(t, w.mem.Files(), 1)
}
