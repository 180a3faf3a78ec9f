//go:build linux

package uploader_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

// powerCut ends the daemon and the kernel with it. lose does to the tree what the
// power cut has done.
func (w *harness) powerCut(lose ...func()) {
	w.t.Helper()
	w.opts.BootID += ", and another"
	w.crash(append(lose, goOn(w))...)
}

// zeros loses what was in the page cache: the file has its size and its times, and
// zeros in it.
func (w *harness) zeros(rel string, off, n int) func() {
	return func() {
		info, err := os.Stat(w.path(rel))
		require.NoError(w.t, err)
		f, err := os.OpenFile(w.path(rel), os.O_WRONLY, 0)
		require.NoError(w.t, err)
		_, err = f.WriteAt(make([]byte, n), int64(off))
		require.NoError(w.t, err)
		require.NoError(w.t, f.Close())
		require.NoError(w.t, os.Chtimes(w.path(rel), info.ModTime(), info.ModTime()))
		w.pretendCtime(rel)
	}
}

// pretendCtime makes the journal say that the file had its present ctime all along:
// the ctime is the one thing that no program can put back.
func (w *harness) pretendCtime(rel string) {
	info, err := w.tree.Stat(rel)
	require.NoError(w.t, err)
	require.NoError(w.t, uploader.RecordCtime(w.opts.StateDir, info.Key, info.Ctime))
}

func TestZerosAfterAPowerCutAreNotSent(t *testing.T) {
	const size = 6 * chunk
	for name, c := range map[string]struct {
		acked     int
		off, lost int
		whole     bool
	}{
		"nothing sent, nothing lost": {0, 0, 0, false}, // it cannot be told
		"nothing sent":               {0, 0, size, false},
		"some sent, others lost":     {4, 4 * chunk, 2 * chunk, false},
		"some sent, nothing lost":    {4, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			sent(t, w, size, c.acked)
			w.powerCut(w.zeros("f", c.off, c.lost))
			w.settle()
			st := w.noResult("f")
			require.Equal(t, state.Interrupted, st.State)
			require.Contains(t, st.Error, "restarted before its content was known to be on the disk")
			require.Empty(t, w.mem.Files())
			require.NoError(t, w.up.Retry("f"))
			w.settle()
			w.uploaded("f")
			w.powerCut()
			w.uploaded("f")
		})
	}
}

func TestWhatWasSentWholeGoesOnAfterAPowerCut(t *testing.T) {
	for name, lost := range map[string]int{"nothing lost": 0, "lost": chunk} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			gate := w.mem.Hold(apitest.OpComplete, apitest.Before)
			f := w.openFile("f")
			f.replace(data(3*chunk, 1))
			f.CommitLater()
			gate.Await(t, 1)
			w.powerCut(w.zeros("f", chunk, lost), gate.Open)
			w.settle()
			if lost > 0 {
				require.Equal(t, state.Interrupted, w.noResult("f").State)
				return
			}
			w.uploaded("f")
			require.Equal(t, 3, w.mem.Counts().Parts)
		})
	}
}

// recordedAsDurable waits until the journal says that the file is on the disk.
func (w *harness) recordedAsDurable(rel string) {
	w.t.Helper()
	want, err := w.tree.Stat(rel)
	require.NoError(w.t, err)
	require.Eventually(w.t, func() bool {
		got, err := w.up.Durable(want.Key)
		require.NoError(w.t, err)
		return got == want.Stamp()
	}, patience, tick)
}

func TestWhatWaitsIsBroughtToTheDisk(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.SyncAfter = time.Millisecond
		o.Names = uploader.NamePolicy{HoldFor: time.Hour}
	})
	sent(t, w, 3*chunk, 1)
	require.NoError(t, w.put("held.tmp", data(chunk, 2)))
	w.mem.Fail(apitest.OpCreate, apitest.Before, refusal())
	require.Error(t, w.put("failed", data(chunk, 3)))
	for _, name := range []string{"f", "held.tmp", "failed"} {
		w.recordedAsDurable(name)
	}
	// What is changed through the mount later is brought there again.
	w.changing("f", false, func() error { return os.Chmod(w.path("f"), 0o640) })
	w.recordedAsDurable("f")
	w.powerCut()
	require.NoError(t, w.up.Retry("held.tmp"))
	w.settle()
	for _, name := range []string{"f", "held.tmp", "failed"} {
		w.uploaded(name)
	}
}

func TestAnotherContentIsNotOnTheDiskYet(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.SyncAfter = time.Millisecond
		o.Names = uploader.NamePolicy{HoldFor: time.Hour}
	})
	require.NoError(t, w.put("f.tmp", data(chunk, 1)))
	w.recordedAsDurable("f.tmp")
	w.opts.SyncAfter = time.Hour
	w.remount()
	f := w.openFile("f.tmp")
	f.writeAt(0, data(chunk, 2))
	got, err := w.up.Durable(f.key)
	require.NoError(t, err)
	require.Zero(t, got)
	require.NoError(t, f.commit())
	f.close()
	w.powerCut()
	require.Equal(t, state.Interrupted, w.status("f.tmp").State)
}

func TestTimesThatWereLostWithThePower(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.SyncAfter = time.Millisecond
		o.Names = uploader.NamePolicy{HoldFor: time.Hour}
	})
	require.NoError(t, w.put("f.tmp", data(chunk, 1)))
	w.recordedAsDurable("f.tmp")
	on, err := w.tree.Stat("f.tmp")
	require.NoError(t, err)
	// The journal knows a later utimes, which the file has lost.
	w.powerCut(func() {
		require.NoError(t, uploader.Alter(w.opts.StateDir, "UPDATE files SET mtime = 5, ctime = 6"))
		now, err := w.tree.Stat("f.tmp")
		require.NoError(t, err)
		require.Equal(t, on, now)
	})
	require.Equal(t, state.Held, w.status("f.tmp").State)
	require.NoError(t, w.up.Retry("f.tmp"))
	w.settle()
	w.uploaded("f.tmp")
}

func TestACleanEndRecordsWhatIsOnTheDisk(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.SyncOnClose = true
		o.Names = uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}
	})
	require.NoError(t, w.put("completed", data(3*chunk, 1)))
	require.NoError(t, w.put("held.tmp", data(chunk, 2)))
	require.NoError(t, w.put("excluded.log", data(chunk, 3)))
	sent(t, w, 3*chunk, 1)
	require.NoError(t, os.Chmod(w.path("completed"), 0o640))
	w.stop()
	w.closeAll()
	goOn(w)()
	w.opts.BootID = "after a clean reboot"
	reads := w.mem.Counts().Parts
	w.start()
	for _, name := range []string{"completed", "held.tmp", "excluded.log"} {
		w.recordedAsDurable(name)
	}
	require.Zero(t, w.log.count("completed files compared after a restart of the machine"), "nothing is doubtful")
	require.NoError(t, w.up.Retry("held.tmp"))
	w.settle()
	w.uploaded("completed")
	w.uploaded("held.tmp")
	w.uploaded("f")
	require.Equal(t, state.Excluded, w.status("excluded.log").State)
	w.rename("excluded.log", "excluded")
	w.settle()
	w.uploaded("excluded")
	require.Equal(t, reads+1+1+2, w.mem.Counts().Parts)
}

func TestAWriterOutlivesACleanEnd(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) { o.SyncOnClose = true })
	sent(t, w, 3*chunk, 0)
	w.stop()
	w.closeAll()
	goOn(w)()
	require.NoError(t, os.WriteFile(w.path("f"), data(3*chunk, 2), 0o600))
	w.opts.BootID = "another"
	w.start()
	w.settle()
	require.Equal(t, state.Interrupted, w.status("f").State)
	require.Empty(t, w.mem.Files())
}

func TestLocalCopiesAfterAPowerCut(t *testing.T) {
	w := newHarness(t)
	for i, name := range []string{"whole", "damaged", "shorter", "emptied"} {
		require.NoError(t, w.put(name, data(3*chunk, byte(i+1))))
	}
	before := map[string]string{}
	for _, name := range []string{"whole", "damaged", "shorter", "emptied"} {
		before[name] = w.uploaded(name).FileID
	}
	w.powerCut(w.zeros("damaged", chunk, chunk), func() {
		require.NoError(t, os.Truncate(w.path("shorter"), chunk))
		require.NoError(t, os.Truncate(w.path("emptied"), 0))
	})
	for _, name := range []string{"damaged", "shorter", "emptied"} {
		w.interruptedAs(name)
		st := w.noResult(name)
		require.Contains(t, st.Error, "its local copy is damaged, and its File at the API is whole")
		require.Equal(t, []string{before[name]}, st.Superseded)
		require.Empty(t, st.PartIDs)
	}
	w.recordedAsDurable("whole")
	require.Equal(t, before["whole"], w.uploaded("whole").FileID)
	require.Len(t, w.mem.Files(), 4, "nothing is sent by itself")

	// What is known to be on the disk is not read again after the next one.
	compared := func() int { return w.log.count("completed files compared after a restart of the machine") }
	require.Eventually(t, func() bool { return compared() == 1 }, patience, tick)
	w.powerCut()
	w.settle()
	require.Equal(t, 1, compared())
	w.uploaded("whole")
}

func (w *harness) interruptedAs(name string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return w.status(name).State == state.Interrupted }, patience, tick)
}

func TestExcludedFilesAfterAPowerCut(t *testing.T) {
	w := newHarness(t, names(uploader.NamePolicy{Exclude: []string{"*.log"}}))
	require.NoError(t, w.put("a.log", data(chunk, 1)))
	require.NoError(t, w.put("b.log", data(chunk, 2)))
	w.powerCut()
	for _, name := range []string{"a.log", "b.log"} {
		require.Equal(t, state.Excluded, w.status(name).State)
	}
	w.rename("a.log", "a")
	require.Equal(t, state.Interrupted, w.status("a").State, "it may have been lost")
	w.opts.Names.Exclude = nil
	w.remount()
	require.Equal(t, state.Interrupted, w.status("b.log").State)
	w.settle()
	require.Empty(t, w.mem.Files())
}

func TestABootThatIsNotKnown(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) { o.BootID = "" })
	require.NoError(t, w.put("completed", data(chunk, 1)))
	sent(t, w, 3*chunk, 1)
	w.crash(goOn(w))
	require.Equal(t, state.Interrupted, w.status("f").State)
	w.recordedAsDurable("completed")
	w.uploaded("completed")
}

func TestTheRecordsOfVersion1(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) {
		o.Names = uploader.NamePolicy{HoldFor: time.Hour, Exclude: []string{"*.log"}}
	})
	require.NoError(t, w.put("completed", data(chunk, 1)))
	require.NoError(t, w.put("excluded.log", data(chunk, 2)))
	require.NoError(t, w.put("held.tmp", data(chunk, 3)))
	gate := w.mem.Hold(apitest.OpComplete, apitest.Before)
	f := w.openFile("sent")
	f.replace(data(3*chunk, 4))
	f.CommitLater()
	gate.Await(t, 1)
	w.crash(gate.Open, func() {
		require.NoError(t, uploader.Alter(w.opts.StateDir, `UPDATE files SET ctime = 0, boot = '',
			mtime = CASE state WHEN 'completed' THEN mtime ELSE 0 END`))
	})
	w.compared(t, "completed")
	require.Equal(t, state.Excluded, w.status("excluded.log").State)
	held := w.status("held.tmp")
	require.Equal(t, state.Interrupted, held.State)
	require.Contains(t, held.Error, "an earlier version wrote the record")
	w.settle()
	w.uploaded("sent")
	w.uploaded("completed")
}

// compared waits until a completed file without a recorded ctime has been compared.
func (w *harness) compared(t *testing.T, rel string) {
	t.Helper()
	require.Eventually(t, func() bool {
		stamp, boot, err := w.up.RecordedStamp(w.key(rel))
		require.NoError(t, err)
		return stamp.Ctime != 0 && boot == w.opts.BootID
	}, patience, tick)
}
