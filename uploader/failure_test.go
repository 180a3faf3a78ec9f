//go:build linux

package uploader_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

func gone() error {
	return &api.Error{Kind: api.Gone, Status: 404, Message: "No such Upload object."}
}

func refusal() error {
	return &api.Error{Kind: api.Refused, Status: 400, Message: "No."}
}

func TestAnOutageIsRetried(t *testing.T) {
	for _, op := range []apitest.Op{apitest.OpCreate, apitest.OpPart, apitest.OpComplete} {
		for _, stage := range []apitest.Stage{apitest.Before, apitest.After} {
			w := newHarness(t)
			w.mem.Fail(op, stage, apitest.ServerError(), apitest.Broken(), apitest.RateLimit(time.Millisecond))
			require.NoError(t, w.put("f", data(3*chunk, 1)))
			w.uploaded("f")
			require.Len(t, w.mem.Files(), 1)
			require.GreaterOrEqual(t, w.log.count("retrying"), 1)
		}
	}
}

func TestRetryingShowsWhyAndWhen(t *testing.T) {
	w := newHarness(t)
	up := make(chan struct{})
	seen := make(chan *uploader.Status, 1)
	w.mem.Hook(func(_ context.Context, c apitest.Call) error {
		if c.Op != apitest.OpPart || c.Stage != apitest.Before {
			return nil
		}
		if st := w.status("f"); st.State == state.Retrying {
			select {
			case seen <- st:
				close(up)
			default:
			}
		}
		select {
		case <-up:
			return nil
		default:
			return apitest.ServerError()
		}
	})
	require.NoError(t, w.put("f", data(chunk, 1)))
	st := <-seen
	require.Contains(t, st.Error, "overloaded")
	require.True(t, st.NextAttempt.IsZero(), "it is the one under way")
	require.Equal(t, 1, st.Calls)
	st = w.uploaded("f")
	require.Empty(t, st.Error)
	require.True(t, st.NextAttempt.IsZero())
}

func TestAGoneUploadIsReplacedOnce(t *testing.T) {
	for _, op := range []apitest.Op{apitest.OpPart, apitest.OpComplete} {
		w := newHarness(t)
		w.mem.Fail(op, apitest.Before, gone())
		require.NoError(t, w.put("f", data(3*chunk, 1)))
		w.uploaded("f")
		require.Equal(t, 2, w.mem.Counts().Created)
		require.Len(t, w.mem.Files(), 1)
	}
}

func TestAnUploadThatExpiresTwiceFails(t *testing.T) {
	w := newHarness(t)
	w.mem.Hook(func(_ context.Context, c apitest.Call) error {
		if c.Op == apitest.OpPart && c.Stage == apitest.MidBody {
			w.mem.Expire(c.UploadID)
		}
		return nil
	})
	err := w.put("f", data(3*chunk, 1))
	require.Equal(t, api.Refused, api.KindOf(err))
	st := w.noResult("f")
	require.Equal(t, state.Failed, st.State)
	require.Contains(t, st.Error, "3.0 KiB")
	require.Contains(t, st.Error, "B/s")
	require.Equal(t, 2, w.mem.Counts().Created)

	w.mem.Hook(nil)
	require.NoError(t, w.up.Retry("f"))
	w.settle()
	w.uploaded("f")
}

func TestAnUploadEndsWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in its time, which no machine is too slow for
		w := newHarness(t)
		short := true
		w.mem.Now = func() time.Time {
			if short {
				short = false
				return time.Now().Add(-time.Hour + 50*time.Millisecond)
			}
			return time.Now()
		}
		stuck := 0
		w.mem.Hook(func(ctx context.Context, c apitest.Call) error {
			if c.Op == apitest.OpPart && c.Stage == apitest.Before && c.UploadID == "upload_0001" {
				stuck++
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		require.NoError(t, w.put("f", data(chunk, 1)))
		w.uploaded("f")
		require.Equal(t, 1, stuck)
	})
}

func TestARefusalIsFinal(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		kind api.Kind
	}{
		"denied":    {apitest.Denied(), api.Denied},
		"quota":     {apitest.Quota(), api.Quota},
		"refused":   {refusal(), api.Refused},
		"too large": {&api.Error{Kind: api.TooLarge, Status: 413, Message: "Too large."}, api.TooLarge},
	} {
		for _, op := range []apitest.Op{apitest.OpCreate, apitest.OpPart, apitest.OpComplete} {
			t.Run(name+" "+string(op), func(t *testing.T) {
				w := newHarness(t)
				w.mem.Fail(op, apitest.Before, c.err)
				f := w.openFile("f")
				f.replace(data(chunk, 1))
				require.Equal(t, c.kind, api.KindOf(f.commit()))
				require.Equal(t, c.kind, api.KindOf(f.Err()), "it stands")
				require.False(t, f.Dirty())
				require.Equal(t, c.kind, api.KindOf(f.commit()), "nothing changed, so it is not tried again")
				f.close()
				st := w.noResult("f")
				require.Equal(t, state.Failed, st.State)
				require.NotEmpty(t, st.Error)
				require.NotContains(t, st.Error, "\n")
				require.Equal(t, 1, w.mem.Counts().Calls[op])

				require.NoError(t, w.up.Retry("f"))
				w.settle()
				w.uploaded("f")
				w.idle(0)
				require.ErrorContains(t, w.up.Retry("f"), "completed")
			})
		}
	}
}

func TestFailedEndsWithNewContent(t *testing.T) {
	w := newHarness(t)
	w.mem.Fail(apitest.OpCreate, apitest.Before, refusal())
	require.Error(t, w.put("f", data(chunk, 1)))
	require.NoError(t, w.put("f", data(2*chunk, 2)))
	w.uploaded("f")
}

func TestRefusedWithReplacedPartsGetsOneFreshUpload(t *testing.T) {
	// An API that counts the parts that are not listed.
	strict := func(w *harness, always bool) {
		w.mem.Hook(func(_ context.Context, c apitest.Call) error {
			if c.Op == apitest.OpComplete && c.Stage == apitest.Before && (always || c.UploadID == "upload_0001") {
				return refusal()
			}
			return nil
		})
	}
	replaced := func(w *harness) error {
		gate := w.mem.Hold(apitest.OpComplete, apitest.Before)
		f := w.openFile("f")
		f.replace(data(4*chunk, 1))
		done := f.committing()
		gate.Await(t, 1)
		f.writeAt(chunk, []byte("edit"))
		later := f.committing()
		gate.Open()
		if err := later.await(t); err != nil {
			return err
		}
		require.NoError(t, done.await(t))
		return nil
	}

	w := newHarness(t)
	strict(w, false)
	require.NoError(t, replaced(w))
	w.uploaded("f")
	counts := w.mem.Counts()
	require.Equal(t, 2, counts.Created)
	require.Equal(t, 4+1+4, counts.Parts, "the fresh Upload has listed parts only")

	w = newHarness(t)
	strict(w, true)
	require.Equal(t, api.Refused, api.KindOf(replaced(w)))
	require.Equal(t, state.Failed, w.noResult("f").State)
	require.Equal(t, 2, w.mem.Counts().Created, "once is enough")
}

func TestUnchangedPartsAreNotSentAgain(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpComplete, apitest.Before)
	w.mem.Fail(apitest.OpComplete, apitest.Before, refusal())
	f := w.openFile("f")
	f.replace(data(8*chunk, 1))
	done := f.committing()
	gate.Await(t, 1)
	f.writeAt(3*chunk-1, []byte("ab")) // the end of one chunk and the start of another
	later := f.committing()
	gate.Open()
	require.NoError(t, later.await(t))
	require.NoError(t, done.await(t))
	w.uploaded("f")
	require.Equal(t, 8+2, w.mem.Counts().Parts)
	require.Equal(t, 1, w.mem.Counts().Created)
}

func TestAFailedWritePoisonsTheContent(t *testing.T) {
	heal := map[string]func(*file){
		"written again":  func(f *file) { f.writeAt(chunk+100, make([]byte, 500)) },
		"in two pieces":  func(f *file) { f.writeAt(chunk+300, make([]byte, 300)); f.writeAt(chunk+100, make([]byte, 200)) },
		"truncated away": func(f *file) { f.truncate(chunk + 100) },
		"written anew":   func(f *file) { f.replace(data(50, 9)) },
	}
	for name, good := range heal {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			f := w.openFile("f")
			f.replace(data(3*chunk, 1))
			f.failWrite(chunk, 600, 100, syscall.ENOSPC)
			bad := func() {
				t.Helper()
				require.ErrorIs(t, f.commit(), syscall.ENOSPC)
				require.ErrorIs(t, f.Lost(), syscall.ENOSPC)
				require.ErrorIs(t, f.Err(), syscall.ENOSPC)
				st := w.noResult("f")
				require.Equal(t, state.Failed, st.State)
				require.Contains(t, st.Error, "1124 to 1624")
				require.ErrorContains(t, w.up.Retry("f"), "missing")
				require.Empty(t, w.mem.Counts().Calls)
			}
			bad()
			f.writeAt(0, make([]byte, chunk+100)) // beside it
			f.truncate(4 * chunk)
			f.Interrupt("killed")
			f.CommitLater()
			f.SendFull()
			bad()
			g := w.openFile("f")
			f.close()
			f = g
			bad()
			good(f)
			require.NoError(t, f.Lost())
			require.True(t, f.Dirty())
			require.NoError(t, f.commit())
			w.uploaded("f")
		})
	}
}

func TestAFailedWriteIsNeverSent(t *testing.T) {
	w := newHarness(t)
	f := w.openFile("f")
	f.replace(data(3*chunk, 1))
	f.failWrite(chunk, 600, 100, syscall.EIO)
	f.close()
	for range 2 {
		require.Equal(t, state.Failed, w.status("f").State)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		require.Empty(t, w.up.Drain(ctx))
		cancel()
		require.Error(t, w.up.Retry("f"))
		w.remount()
	}
	// The next daemon does not know which bytes are missing, so that a part of
	// the file is written says nothing.
	f = w.openFile("f")
	require.Equal(t, api.Damaged, api.KindOf(f.Err()))
	f.writeAt(0, make([]byte, 2*chunk))
	require.Equal(t, api.Damaged, api.KindOf(f.commit()))
	f.close()
	require.Empty(t, w.mem.Counts().Calls)
	require.NoError(t, w.put("f", data(2*chunk, 2)))
	w.uploaded("f")
}

func TestAWriteFailsWhileAnotherCloseWaits(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f, g := w.openFile("f"), w.openFile("f")
	f.replace(data(3*chunk, 1))
	done := f.committing()
	gate.Await(t, 1)
	g.failWrite(0, chunk, 0, syscall.ENOSPC)
	require.ErrorIs(t, done.await(t), syscall.ENOSPC)
	gate.Open()
	g.close()
	f.close()
	require.Equal(t, state.Failed, w.noResult("f").State)
	require.Empty(t, w.mem.Files())
}

func TestAWriteThatFailsAfterAnotherCloseHasSpokenOfIt(t *testing.T) {
	w := newHarness(t)
	f, g := w.openFile("f"), w.openFile("f")
	f.replace(data(3*chunk, 1))
	_, err := g.Write(0, make([]byte, chunk), func() (int64, error) {
		f.CommitLater() // before it is known that the write fails
		return 0, syscall.ENOSPC
	})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, state.Failed, w.status("f").State)
	require.ErrorIs(t, f.commit(), syscall.ENOSPC)
	f.close()
	g.close()
	require.Empty(t, w.mem.Files())
}

func TestAnotherChangeThatFailsPoisonsNothing(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, w.put("f", data(2*chunk, 1)))
	f := w.openFile("f")
	_, err := f.Change(0, chunk, func() (int64, error) { return 0, syscall.EOPNOTSUPP })
	require.ErrorIs(t, err, syscall.EOPNOTSUPP)
	require.ErrorIs(t, f.Resize(10, func() error { return syscall.EIO }), syscall.EIO)
	require.NoError(t, f.Lost())
	// Half done, perhaps: what was read meanwhile does not count.
	_, err = f.Change(0, chunk, func() (int64, error) {
		f.CommitLater()
		_, err := f.f.WriteAt(data(chunk/2, 7), 0)
		return 0, errors.Join(err, syscall.EIO)
	})
	require.ErrorIs(t, err, syscall.EIO)
	require.NoError(t, f.commit())
	w.uploaded("f")
}

func TestAPartIsReadWhileItIsWritten(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpPart, apitest.MidBody)
	f, g := w.openFile("f"), w.openFile("f")
	f.replace(data(chunk, 1))
	done := f.committing()
	gate.Await(t, 1)
	_, err := g.Write(0, make([]byte, chunk), func() (int64, error) {
		n, err := g.f.WriteAt(data(chunk, 2), 0)
		gate.Open() // the second half of the part is the new content's
		return int64(n), err
	})
	require.NoError(t, err)
	require.NoError(t, g.commit())
	require.NoError(t, done.await(t))
	w.uploaded("f")
}

func TestInterrupted(t *testing.T) {
	w := newHarness(t)
	f, g := w.openFile("f"), w.openFile("f")
	f.replace(data(2*chunk, 1))
	w.mem.Hold(apitest.OpPart, apitest.Before).Open()
	f.Interrupt("its writer was killed")
	require.False(t, f.Dirty())
	require.Equal(t, api.Interrupted, api.KindOf(g.commit()))
	f.close()
	g.close()
	w.settle()
	st := w.noResult("f")
	require.Equal(t, state.Interrupted, st.State)
	require.Contains(t, st.Error, "killed")
	require.Empty(t, w.mem.Counts().Calls)

	w.remount()
	w.settle()
	require.Equal(t, state.Interrupted, w.status("f").State)
	require.Contains(t, w.status("f").Error, "killed")
	require.NoError(t, w.up.Retry("f"))
	w.settle()
	w.uploaded("f")
}

func TestInterruptedWhileAnotherCloseWaits(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f, g := w.openFile("f"), w.openFile("f")
	f.replace(data(2*chunk, 1))
	done := f.committing()
	gate.Await(t, 1)
	g.writeAt(0, []byte("half of what"))
	g.Interrupt("its writer was killed")
	require.Equal(t, api.Interrupted, api.KindOf(done.await(t)))
	gate.Open()
	f.close()
	g.close()
	require.Equal(t, state.Interrupted, w.status("f").State)
	require.Empty(t, w.mem.Files())
	require.NoError(t, w.put("f", data(chunk, 3)))
	w.uploaded("f")
}

func TestRetryInEachState(t *testing.T) {
	w := newHarness(t)
	require.Error(t, w.up.Retry("missing"))
	f := w.openFile("f")
	require.ErrorContains(t, w.up.Retry("f"), "empty")
	f.replace(data(2*chunk, 1))
	require.ErrorContains(t, w.up.Retry("f"), "writing")
	f.Interrupt("killed")
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	require.NoError(t, w.up.Retry("f"))
	gate.Await(t, 1)
	require.NoError(t, w.up.Retry("f"), "that is what it is doing")
	gate.Open()
	f.close()
	w.settle()
	w.uploaded("f")
	require.ErrorContains(t, w.up.Retry("f"), "completed")
	require.Len(t, w.mem.Files(), 1)

	// What is interrupted may have been emptied behind the mount.
	f = w.openFile("f")
	f.replace(data(chunk, 2))
	f.Interrupt("killed")
	f.close()
	require.NoError(t, os.Truncate(w.path("f"), 0))
	require.NoError(t, w.up.Retry("f"))
	require.Equal(t, state.Empty, w.status("f").State)
}

func TestMessagesAreOneLine(t *testing.T) {
	w := newHarness(t)
	w.mem.Fail(apitest.OpCreate, apitest.Before, &api.Error{Kind: api.Refused, Message: "a\nb\x1b[31mc" + strings.Repeat("d", 1000)})
	require.Error(t, w.put("f", data(10, 1)))
	msg := w.status("f").Error
	require.NotContains(t, msg, "\n")
	require.NotContains(t, msg, "\x1b")
	require.Less(t, len(msg), 600)
}
