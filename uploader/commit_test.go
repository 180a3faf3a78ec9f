//go:build linux

package uploader_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

func TestAFileIsCompletedWhenCloseReturns(t *testing.T) {
	w := newHarness(t)
	for _, size := range []int{1, chunk - 1, chunk, chunk + 1, 10*chunk + 7} {
		require.NoError(t, w.put("f", data(size, byte(size))))
		st := w.uploaded("f")
		require.Equal(t, "f", st.Filename)
		require.Equal(t, uploader.DefaultPurpose, st.Purpose)
	}
	w.idle(0)
	require.Len(t, w.status("f").Superseded, 4)
	require.Len(t, w.mem.Files(), 5)
	require.Empty(t, w.mem.Uploads("pending"))

	snap, err := w.up.Snapshot()
	require.NoError(t, err)
	require.Equal(t, uploader.Snapshot{Counts: map[state.State]int{state.Completed: 1}, Parallel: 4}, snap)
}

func TestWithoutAChecksum(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) { o.Checksum = false })
	require.NoError(t, w.put("f", data(3*chunk, 1)))
	require.Empty(t, w.uploaded("f").MD5)
}

func TestTheJournalKnowsBeforeTheEffect(t *testing.T) {
	w := newHarness(t)
	recorded := func(key string, want state.State, wantOpen bool) {
		t.Helper()
		state, open, err := w.up.Recorded(w.key(key))
		require.NoError(t, err)
		require.Equal(t, want, state)
		require.Equal(t, wantOpen, open)
	}
	f := w.openFile("f")
	recorded("f", state.Empty, true)
	_, err := f.Write(0, make([]byte, 1), func() (int64, error) {
		recorded("f", state.Writing, true)
		n, err := f.f.WriteAt([]byte("x"), 0)
		return int64(n), err
	})
	require.NoError(t, err)
	w.mem.Hook(func(_ context.Context, c apitest.Call) error {
		if c.Stage == apitest.Before {
			recorded("f", state.Uploading, true)
			require.Equal(t, c.Op == apitest.OpComplete, w.up.Completing(f.key))
		}
		return nil
	})
	require.NoError(t, f.commit())
	recorded("f", state.Completed, true)
	f.close()
	recorded("f", state.Completed, false)
}

func TestAJournalThatCannotBeWrittenStopsTheWriter(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("f", data(10, 1)))
	require.True(t, w.up.AwaitSessions(t.Context(), 0), "nothing of it is still to be recorded")
	require.NoError(t, uploader.RefuseRecords(w.opts.StateDir))

	_, err := w.tryOpen("g")
	require.Error(t, err)
	require.NoError(t, uploader.AcceptRecords(w.opts.StateDir))
	f := w.openFile("f")
	before := w.uploaded("f")
	require.NoError(t, uploader.RefuseRecords(w.opts.StateDir))
	_, err = f.Change(0, 1, func() (int64, error) {
		t.Error("the change happened although the journal does not know of it")
		return 0, nil
	})
	require.Error(t, err)
	require.Error(t, f.Resize(0, func() error { return errors.New("the change happened") }))
	require.False(t, f.Dirty())
	require.Equal(t, before, w.uploaded("f"))

	// The program was told long ago that its write had succeeded.
	_, err = f.Write(0, make([]byte, 1), func() (int64, error) {
		t.Error("the change happened although the journal does not know of it")
		return 0, nil
	})
	require.Error(t, err)
	require.Equal(t, api.Damaged, api.KindOf(f.commit()))
	require.Equal(t, state.Failed, w.noResult("f").State)

	require.NoError(t, uploader.AcceptRecords(w.opts.StateDir))
	f.writeAt(0, []byte("y"))
	require.NoError(t, f.commit())
	w.uploaded("f")
	w.log.forgive()
}

func TestNothingChangedNothingSent(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("f", data(10, 1)))
	calls := w.mem.Counts().Calls
	f := w.openFile("f")
	require.False(t, f.Dirty())
	require.NoError(t, f.Err())
	require.NoError(t, f.commit())
	f.CommitLater()
	f.SendFull()
	f.close()
	w.settle()
	require.Equal(t, calls, w.mem.Counts().Calls)
	w.uploaded("f")
}

func TestResultsGoWithTheFirstChangedByte(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("f", data(3*chunk, 1)))
	first := w.uploaded("f")
	f := w.openFile("f")
	require.Equal(t, first.FileID, w.status("f").FileID)
	_, err := f.Write(0, make([]byte, 1), func() (int64, error) {
		st := w.status("f")
		require.Equal(t, state.Writing, st.State)
		require.Empty(t, st.FileID+st.MD5+st.UploadID+st.PartsDone())
		require.Empty(t, st.PartIDs)
		require.Zero(t, st.BytesSent+int64(st.Total))
		require.Equal(t, []string{first.FileID}, st.Superseded)
		n, err := f.f.WriteAt([]byte("!"), 0)
		return int64(n), err
	})
	require.NoError(t, err)
	require.True(t, f.Dirty())
	require.NoError(t, f.commit())
	require.NotEqual(t, first.FileID, w.uploaded("f").FileID)
}

func TestPartsShowAsTheyAreAcknowledged(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) { o.Parallel = 1 })
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f := w.openFile("f")
	f.replace(data(3*chunk, 1))
	done := f.committing()
	for i := range 3 {
		var st *uploader.Status
		require.Eventually(t, func() bool {
			st = w.status("f")
			return st.Acked == i && st.Total == 3
		}, patience, tick)
		require.EqualValues(t, i*chunk, st.BytesSent)
		require.Len(t, st.PartIDs, i)
		require.Equal(t, i > 0, st.PartAt(0) != "")
		require.Empty(t, st.PartAt(2))
		require.Empty(t, st.FileID)
		gate.Pass()
	}
	gate.Open()
	require.NoError(t, done.await(t))
	require.Equal(t, 3, w.uploaded("f").Acked)
}

func TestNoMoreCallsThanSlots(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) { o.Parallel = 3 })
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f, g := w.openFile("f"), w.openFile("g")
	f.replace(data(6*chunk, 1))
	g.replace(data(6*chunk, 2))
	fd, gd := f.committing(), g.committing()
	gate.Await(t, 3)
	require.Equal(t, 3, gate.Held())
	snap, err := w.up.Snapshot()
	require.NoError(t, err)
	require.Equal(t, 3, snap.InFlight)
	gate.Open()
	require.NoError(t, fd.await(t))
	require.NoError(t, gd.await(t))
	require.Equal(t, 3, w.mem.Counts().Peak[apitest.OpPart])
	w.uploaded("f")
	w.uploaded("g")
}

func TestTheWaitingIsBounded(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f := w.openFile("f")
	f.replace(data(10, 1))
	cause := errors.New("the caller is gone")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	require.ErrorIs(t, f.Commit(ctx), cause)
	require.True(t, f.Dirty(), "this handle's content is on its way")
	gate.Open()
	w.settleWriters(f)
	require.False(t, f.Dirty())
	w.uploaded("f")
}

// settleWriters waits for a commit that no close waits for any more.
func (w *harness) settleWriters(f *file) {
	w.t.Helper()
	require.NoError(w.t, f.commit())
}

func TestTheTimeToWaitRunsFromTheLastAcknowledgedByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in its time, which no machine is too slow for
		const timeout = 10 * time.Second
		w := newHarness(t, func(o *uploader.Options) { o.CloseTimeout, o.Parallel = timeout, 1 })
		gate := w.mem.Hold(apitest.OpPart, apitest.Before)
		f := w.openFile("f")
		f.replace(data(5*chunk, 1))
		began := time.Now()
		done := f.committing()
		// Each part takes more than half of the time, so all of them take longer.
		for range 4 {
			gate.Await(t, 1)
			select {
			case err := <-done.done:
				t.Fatalf("gave up after %v although parts were acknowledged: %v", time.Since(began), err)
			case <-time.After(timeout * 6 / 10):
			}
			gate.Pass()
		}
		acked := time.Now()
		require.ErrorIs(t, done.await(t), context.DeadlineExceeded)
		require.GreaterOrEqual(t, time.Since(acked), timeout*9/10)
		require.Equal(t, state.Uploading, w.status("f").State, "the upload goes on")
		gate.Open()
		f.close()
		w.settle()
		w.uploaded("f")
	})
}

func TestAChangeDuringTheSending(t *testing.T) {
	for name, stage := range map[string]struct {
		op apitest.Op
		at apitest.Stage
	}{
		"before the Upload": {apitest.OpCreate, apitest.Before},
		"after the Upload":  {apitest.OpCreate, apitest.After},
		"within a part":     {apitest.OpPart, apitest.MidBody},
		"after a part":      {apitest.OpPart, apitest.After},
		"before Complete":   {apitest.OpComplete, apitest.Before},
		"after Complete":    {apitest.OpComplete, apitest.After},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			gate := w.mem.Hold(stage.op, stage.at)
			f, g := w.openFile("f"), w.openFile("f")
			f.replace(data(4*chunk, 1))
			done := f.committing()
			gate.Await(t, 1)
			g.writeAt(2*chunk+5, []byte("changed while it was sent"))
			w.noResult("f")
			later := g.committing()
			gate.Open()
			require.NoError(t, done.await(t))
			require.NoError(t, later.await(t))
			st := w.uploaded("f")
			if stage.op == apitest.OpComplete {
				require.Len(t, st.Superseded, 1, "the first content was right when it was completed")
			} else {
				require.Len(t, w.mem.Files(), 1, "no close has spoken of a content in between")
				require.Empty(t, st.Superseded)
			}
		})
	}
}

func TestTruncatedAndRewrittenDuringTheSending(t *testing.T) {
	for _, size := range []int{4 * chunk, 4*chunk + 1, chunk, 1} {
		w := newHarness(t)
		gate := w.mem.Hold(apitest.OpPart, apitest.After)
		f := w.openFile("f")
		f.replace(data(4*chunk, 1))
		f.CommitLater()
		gate.Await(t, 1)
		f.replace(data(size, 2))
		done := f.committing()
		gate.Open()
		require.NoError(t, done.await(t))
		w.uploaded("f")
		require.Len(t, w.mem.Files(), 1)
	}
}

func TestEmptiedDuringTheSending(t *testing.T) {
	for _, stage := range []apitest.Op{apitest.OpCreate, apitest.OpPart, apitest.OpComplete} {
		w := newHarness(t)
		gate := w.mem.Hold(stage, apitest.Before)
		f := w.openFile("f")
		f.replace(data(4*chunk, 1))
		first := f.committing()
		gate.Await(t, 1)
		key := f.key
		f.truncate(0)
		require.NoError(t, f.commit())
		require.NoError(t, f.commit(), "a close of an empty file has nothing to wait for, also while a commit winds down")
		require.NoError(t, first.await(t))
		require.Equal(t, state.Empty, w.noResult("f").State)
		gate.Open()
		f.close()
		w.idle(0)
		require.Zero(t, w.log.count("failed"))
		if stage != apitest.OpComplete {
			require.Empty(t, w.mem.Files())
			continue
		}
		require.Len(t, w.mem.Files(), 1, "a Complete under way is not cut off")
		require.Equal(t, []string{w.mem.Files()[0].ID}, w.up.Status(key, "f").Superseded)
	}
}

func TestWhatIsQueuedIsDecidedAnew(t *testing.T) {
	// One file after the other has its turn, and what a later close has said
	// of a content counts when it comes.
	for name, c := range map[string]struct {
		later func(*harness, *file)
		state state.State
	}{
		"interrupted": {func(w *harness, f *file) { f.Interrupt("killed") }, state.Interrupted},
		"held":        {func(w *harness, f *file) { w.rename("f", "f.tmp"); f.CommitLater() }, state.Held},
		"emptied":     {func(w *harness, f *file) { f.truncate(0); f.CommitLater() }, state.Empty},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, func(o *uploader.Options) { o.Parallel, o.Names.HoldFor = 1, time.Hour })
			gate := w.mem.Hold(apitest.OpCreate, apitest.Before)
			for i := range uploader.CommitsPerSlot {
				g := w.openFile(fmt.Sprint("before", i))
				g.replace(data(10, byte(i)))
				g.CommitLater()
			}
			gate.Await(t, 1)
			f := w.openFile("f")
			f.replace(data(3*chunk, 1))
			f.CommitLater()
			f.writeAt(0, []byte("later"))
			c.later(w, f)
			gate.Open()
			require.Eventually(t, func() bool { return !w.up.Committing(f.key) }, patience, tick)
			state, _, err := w.up.Recorded(f.key)
			require.NoError(t, err)
			require.Equal(t, c.state, state)
			for _, made := range w.mem.Files() {
				require.NotEqual(t, "f", made.Filename)
			}
		})
	}
}

func TestACloseOfHalfAWriteIsNotSent(t *testing.T) {
	w := newHarness(t)
	f, g := w.openFile("f"), w.openFile("f")
	f.replace(data(4*chunk, 1))
	_, err := g.Write(0, make([]byte, 3*chunk), func() (int64, error) {
		_, err := g.f.WriteAt(data(chunk, 7), 0)
		require.NoError(t, err)
		f.CommitLater()
		n, err := g.f.WriteAt(data(2*chunk, 8), chunk)
		return int64(n + chunk), err
	})
	require.NoError(t, err)
	require.Equal(t, state.Writing, w.status("f").State, "no close has spoken of it")
	recorded, _, err := w.up.Recorded(f.key)
	require.NoError(t, err)
	require.Equal(t, state.Writing, recorded)
	require.Empty(t, w.mem.Files())
	require.NoError(t, g.commit())
	w.uploaded("f")
	require.Len(t, w.mem.Files(), 1)
}

func TestACloseThatWaitsForContentThatNoOtherCloseWillCommit(t *testing.T) {
	for name, last := range map[string]func(*file){
		"the other handle is released":       func(f *file) { f.close() },
		"a duplicate of the other is closed": func(f *file) { f.SendFull() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			gate := w.mem.Hold(apitest.OpPart, apitest.Before)
			f, g := w.openFile("f"), w.openFile("f")
			f.replace(data(2*chunk, 1))
			done := f.committing()
			gate.Await(t, 1)
			g.writeAt(0, []byte("a store through a mapping, after its close"))
			gate.Open()
			last(g)
			require.NoError(t, done.await(t))
			w.uploaded("f")
		})
	}
}

func TestEmptyFilesStayHere(t *testing.T) {
	w := newHarness(t)
	f := w.openFile("f")
	require.NoError(t, f.commit())
	f.close()
	require.Equal(t, state.Empty, w.status("f").State)
	require.NoError(t, w.put("g", nil))
	require.Equal(t, state.Empty, w.status("g").State)
	require.Empty(t, w.mem.Counts().Calls)
	w.idle(0)

	require.NoError(t, w.put("g", data(1, 1)))
	w.uploaded("g")
	require.NoError(t, w.put("g", nil))
	st := w.noResult("g")
	require.Equal(t, state.Empty, st.State)
	require.Len(t, st.Superseded, 1)
}

func TestLargerThanTheLargestUpload(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) { o.PartSize = api.MaxPart })
	f := w.openFile("f")
	f.truncate(api.MaxUpload + 1)
	err := f.commit()
	require.Equal(t, api.TooLarge, api.KindOf(err))
	require.Equal(t, state.Failed, w.status("f").State)
	require.Contains(t, w.status("f").Error, "8 GiB")
	require.Equal(t, api.TooLarge, api.KindOf(f.Err()), "it stands")
	require.Empty(t, w.mem.Counts().Calls)
	f.replace(data(10, 1))
	require.NoError(t, f.commit())
	require.Equal(t, state.Completed, w.status("f").State)
}

func TestAWriteFarAwayCostsNothing(t *testing.T) {
	w := newHarness(t, func(o *uploader.Options) { o.PartSize = api.MaxPart })
	f := w.openFile("f")
	f.writeAt(0, data(10, 1))
	f.failWrite(math.MaxInt64-4096, 4096, 0, os.ErrInvalid)
	require.Equal(t, api.Damaged, api.KindOf(f.commit()))
	f.truncate(10) // takes away what is missing far beyond
	require.NoError(t, f.Lost())
	require.NoError(t, f.commit())
	w.uploaded("f")
}

func TestLateChangesAfterTheUnmount(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("done", data(10, 1)))
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f, g, d := w.openFile("f"), w.openFile("g"), w.openFile("done")
	f.replace(data(3*chunk, 1))
	g.replace(data(3*chunk, 1))
	waiting := f.committing()
	gate.Await(t, 1)
	w.stop()
	require.Equal(t, api.Stopped, api.KindOf(waiting.await(t)))

	// A detached mount still serves what is open.
	g.writeAt(0, []byte("kept, and interrupted at the next mount"))
	_, err := d.Write(0, make([]byte, 1), func() (int64, error) { t.Error("the journal does not know of it"); return 0, nil })
	require.Equal(t, api.Stopped, api.KindOf(err))
	require.Equal(t, api.Stopped, api.KindOf(g.commit()))
	g.CommitLater()
	g.SendFull()
	for _, h := range []*file{f, g, d} {
		h.close()
	}
	gate.Open()
	w.start()
	w.settle()
	w.uploaded("f")
	w.uploaded("done")
	require.Equal(t, state.Interrupted, w.noResult("g").State)
	require.NoError(t, w.up.Retry("g"))
	w.settle()
	w.uploaded("g")
}

func TestTheNameAndTheAttributesAreThoseAtCreate(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpCreate, apitest.Before)
	f := w.openFile("a.jsonl")
	f.replace(data(10, 1))
	done := f.committing()
	gate.Await(t, 1)
	require.NoError(t, os.Rename(w.path("a.jsonl"), w.path("b.txt")))
	w.up.Renamed("a.jsonl", "b.txt", f.key, false)
	gate.Open()
	require.NoError(t, done.await(t))
	st := w.uploaded("b.txt")
	require.Equal(t, "a.jsonl", st.Filename)
	require.Equal(t, "text/jsonl", st.MimeType)
	require.Equal(t, "b.txt", st.Path)
	require.Equal(t, "a.jsonl", w.mem.Files()[0].Filename)
	require.True(t, strings.HasPrefix(st.UploadID, "upload_"))
}
