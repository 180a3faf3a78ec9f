//go:build linux

package uploader_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// move ends the daemon and goes on in a copy of the tree, made by a shell command
// that copies "$1" to "$2".
func (w *harness) move(command string, meanwhile ...func()) {
	w.t.Helper()
	w.crash(append(meanwhile, func() {
		old := w.path("") + ".old"
		require.NoError(w.t, w.tree.Close())
		require.NoError(w.t, os.Rename(w.path(""), old))
		out, err := exec.Command("sh", "-ec", command, "sh", old, w.path("")).CombinedOutput()
		require.NoError(w.t, err, "%s", out)
		require.NoError(w.t, os.RemoveAll(old))
		w.tree, err = backing.Open(w.path(""))
		require.NoError(w.t, err)
		w.opts.Tree = w.tree
	})...)
}

const (
	copied   = `cp -a "$1" "$2"`
	untimed  = `cp -r "$1" "$2"`
	archived = `mkdir "$2"; tar -C "$1" --format=gnu -cf - . | tar -C "$2" -xf -` // whole seconds
)

// stateful makes a tree with a file in each state that survives.
func stateful(t *testing.T, w *harness) {
	t.Helper()
	require.NoError(t, os.MkdirAll(w.path("d/e"), 0o700))
	require.NoError(t, w.put("d/e/completed", data(3*chunk, 1)))
	require.NoError(t, w.put("d/held.tmp", data(chunk, 2)))
	require.NoError(t, w.put("excluded.log", data(chunk, 3)))
	w.mem.Fail(apitest.OpCreate, apitest.Before, refusal())
	require.Error(t, w.put("failed", data(chunk, 4)))
	open := w.openFile("interrupted")
	open.replace(data(chunk, 5))
	open.Interrupt("a test says so")
	open.close()
	require.NoError(t, w.put("empty", nil))
	sent(t, w, 6*chunk, 4)
}

func TestAMovedStateDirectory(t *testing.T) {
	for name, c := range map[string]struct {
		command string
		mtimes  bool
	}{
		"copied":                     {copied, true},
		"restored from an archive":   {archived, true},
		"copied without their times": {untimed, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, func(o *uploader.Options) {
				o.Names = uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}
			})
			stateful(t, w)
			before, completed := w.status("f"), w.uploaded("d/e/completed")
			w.move(c.command, goOn(w))
			require.Equal(t, completed.FileID, w.uploaded("d/e/completed").FileID)
			require.Equal(t, completed.PartIDs, w.status("d/e/completed").PartIDs)
			require.Equal(t, state.Interrupted, w.status("interrupted").State)
			require.Contains(t, w.status("interrupted").Error, "a test says so")
			require.Equal(t, state.Empty, w.status("empty").State)
			if !c.mtimes {
				for _, name := range []string{"d/held.tmp", "excluded.log", "failed", "f"} {
					require.Equal(t, state.Interrupted, w.status(name).State, name)
				}
				w.settle()
				return
			}
			require.Equal(t, state.Excluded, w.status("excluded.log").State)
			require.Equal(t, state.Held, w.status("d/held.tmp").State)
			require.NoError(t, w.up.Retry("d/held.tmp"))
			w.settle()
			for _, name := range []string{"d/held.tmp", "failed", "f"} {
				w.uploaded(name)
			}
			require.Equal(t, before.UploadID, w.status("f").UploadID)
			require.Subset(t, w.status("f").PartIDs, before.PartIDs)
			require.Len(t, w.mem.Files(), 4)

			// It is a tree like any other now.
			w.remount()
			w.settle()
			require.Equal(t, completed.FileID, w.uploaded("d/e/completed").FileID)
			require.Equal(t, state.Excluded, w.status("excluded.log").State)
			require.Len(t, w.mem.Files(), 4)
		})
	}
}

func TestAMovedStateDirectoryIsKilledAtOnce(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.Names = uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}
	})
	stateful(t, w)
	w.mem.Hold(apitest.OpCreate, apitest.Before) // nothing goes on before it is killed
	w.move(copied)
	w.crash(goOn(w), func() { w.mem.Hold(apitest.OpCreate, apitest.Before).Open() })
	w.settle()
	for _, name := range []string{"d/e/completed", "failed", "f"} {
		w.uploaded(name)
	}
	require.Equal(t, state.Excluded, w.status("excluded.log").State)
}

func TestAMovedFileThatDoesNotFit(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("completed", data(3*chunk, 1)))
	before := w.uploaded("completed")
	sent(t, w, 3*chunk, 2)
	w.move(copied, goOn(w), func() {
		require.NoError(t, rewritten(3*chunk, 5)(w.path("completed")))
		require.NoError(t, rewritten(3*chunk, 6)(w.path("f")))
	})
	require.Equal(t, state.Interrupted, w.status("f").State)
	w.interruptedAs("completed")
	require.Equal(t, []string{before.FileID}, w.status("completed").Superseded)
	w.settle()
	require.Len(t, w.mem.Files(), 1)
}

func TestAMovedStateDirectoryAfterAnotherBoot(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.SyncAfter = time.Millisecond
		o.Names = uploader.NamePolicy{HoldFor: time.Hour}
	})
	require.NoError(t, w.put("durable.tmp", data(chunk, 1)))
	w.recordedAsDurable("durable.tmp")
	require.NoError(t, w.put("completed", data(chunk, 2)))
	w.opts.SyncAfter = time.Hour
	w.remount()
	require.NoError(t, w.put("not.tmp", data(chunk, 3)))
	w.opts.BootID = "another machine"
	w.move(copied)
	require.Equal(t, state.Held, w.status("durable.tmp").State)
	require.Equal(t, state.Interrupted, w.status("not.tmp").State)
	w.uploaded("completed")
}

func TestHardLinksInAMovedStateDirectory(t *testing.T) {
	for name, command := range map[string]string{"kept": copied, "split": `cp -a --no-preserve=links "$1" "$2"`} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			require.NoError(t, w.put("a", data(chunk, 1)))
			require.NoError(t, os.Link(w.path("a"), w.path("b")))
			before := w.uploaded("a").FileID
			w.move(command)
			require.Equal(t, before, w.uploaded("a").FileID)
			if name == "kept" {
				require.Equal(t, before, w.uploaded("b").FileID)
				return
			}
			require.Equal(t, state.Interrupted, w.status("b").State, "it is a file without a record now")
		})
	}
}

// Where the filesystem keeps no birth time, another file may have the number.
func TestNumbersOfFilesThatChangedPlaces(t *testing.T) {
	w := newHarness(t)
	const n = 8
	ids := map[string]string{}
	for i := range n {
		require.NoError(t, w.put(fmt.Sprint(i), data(chunk, byte(i))))
		ids[fmt.Sprint(i)] = w.uploaded(fmt.Sprint(i)).FileID
	}
	w.crash(func() {
		// Each record gets the number of the next file, as a copy in another order does.
		require.NoError(t, uploader.Alter(w.opts.StateDir, `UPDATE files SET birth = -1`))
		require.NoError(t, uploader.Alter(w.opts.StateDir, `UPDATE parts SET birth = -1`))
	})
	for name, id := range ids {
		require.Equal(t, id, w.uploaded(name).FileID)
	}
}

func TestAFileThatWasReplacedBehindTheMountKeepsItsHistory(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("f", data(chunk, 1)))
	before := w.uploaded("f").FileID
	w.crash(func() {
		require.NoError(t, os.WriteFile(w.path("new"), data(chunk, 2), 0o600))
		require.NoError(t, os.Rename(w.path("new"), w.path("f")))
	})
	st := w.noResult("f")
	require.Equal(t, state.Interrupted, st.State)
	require.Equal(t, []string{before}, st.Superseded)
}
