//go:build linux

package uploader_test

import (
	"context"
	"io"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

// source is a SizePredictor that knows the size of what is copied.
type source struct {
	size  int64
	ok    bool
	asked chan int64 // offsets, if not nil
	reply chan bool  // the answers wait for it, if not nil
}

func (s *source) Size(ctx context.Context, file io.ReaderAt, off, n, written int64) (int64, bool) {
	if s.asked != nil {
		select {
		case s.asked <- off:
		case <-ctx.Done():
		}
	}
	if s.reply != nil {
		select {
		case <-s.reply:
		case <-ctx.Done():
		}
	}
	return s.size, s.ok
}

func TestPartsGoWhileTheFileIsWritten(t *testing.T) {
	const size = 5*chunk + 100
	for name, expect := range map[string]func(*harness, *file){
		"a copy":   func(w *harness, f *file) { f.SetPredictor(nil); f.SetPredictor(&source{size: size, ok: true}) },
		"hinted":   func(w *harness, f *file) { w.hint("f", size) },
		"extended": func(w *harness, f *file) { f.truncate(size) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			gate := w.mem.Hold(apitest.OpPart, apitest.Before)
			f := w.openFile("f")
			expect(w, f)
			content := data(size, 1)
			f.writeAt(0, content[:chunk+chunk/2])
			gate.Await(t, 1)
			require.Equal(t, state.Writing, w.status("f").State)
			gate.Open()
			for off := chunk + chunk/2; off < size; off += 300 {
				f.writeAt(int64(off), content[off:min(off+300, size)])
			}
			// All of it goes, the shorter last chunk too, before any close.
			allParts(t, w, 6)
			require.Empty(t, w.mem.Files())
			require.NoError(t, f.commit())
			w.uploaded("f")
			require.Equal(t, 6, w.mem.Counts().Parts)
			require.Equal(t, 1, w.mem.Counts().Created)
		})
	}
}

// hint sets the size that the file is said to become.
func (w *harness) hint(rel string, size int64) {
	w.t.Helper()
	require.NoError(w.t, unix.Setxattr(w.path(rel), uploader.AttrPrefix+uploader.AttrSizeHint, []byte(strconv.FormatInt(size, 10)), 0))
}

// allParts waits until n parts of the file f are acknowledged.
func allParts(t *testing.T, w *harness, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return w.status("f").Acked == n }, patience, tick)
}

func TestAWrongGuessCostsBandwidthOnly(t *testing.T) {
	for name, size := range map[string]int{"larger": 3 * chunk, "much larger": 1, "smaller": 9 * chunk, "by one byte": 5*chunk + 1} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			gate := w.mem.Hold(apitest.OpPart, apitest.Before)
			f := w.openFile("f")
			w.hint("f", 5*chunk)
			content := data(size, 1)
			if size >= chunk {
				f.writeAt(0, content[:chunk])
				gate.Await(t, 1)
			}
			gate.Open()
			f.writeAt(0, content)
			require.NoError(t, f.commit())
			f.close()
			w.idle(0)
			w.uploaded("f")
			require.Len(t, w.mem.Files(), 1)
		})
	}
}

func TestWhatWasSentEarlyIsOverwritten(t *testing.T) {
	w := newHarness(t)
	f := w.openFile("f")
	w.hint("f", 4*chunk)
	f.writeAt(0, data(4*chunk, 1))
	allParts(t, w, 4)
	f.writeAt(chunk, data(chunk, 2))
	f.writeAt(3*chunk, []byte("!"))
	require.NoError(t, f.commit())
	w.uploaded("f")
	require.Equal(t, 1, w.mem.Counts().Created)
	require.Equal(t, 4+2, w.mem.Counts().Parts, "each of them goes early once")
}

func TestNothingGoesEarlyThatShouldNot(t *testing.T) {
	for name, c := range map[string]struct {
		rel    string
		oracle *source
		write  func(*file)
	}{
		"an unknown size":           {"f", &source{}, nil},
		"an excluded name":          {"f.log", &source{size: 4 * chunk, ok: true}, nil},
		"a held name":               {"f.tmp", &source{size: 4 * chunk, ok: true}, nil},
		"a size already passed":     {"f", &source{size: 2 * chunk, ok: true}, nil},
		"holes":                     {"f", &source{size: 4 * chunk, ok: true}, func(f *file) { f.writeAt(10, data(chunk, 1)); f.writeAt(3*chunk, data(500, 1)) }},
		"larger than the API takes": {"f", &source{size: api.MaxUpload + 1, ok: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, func(o *uploader.Options) { o.Names.Exclude = []string{"*.log"} })
			f := w.openFile(c.rel)
			f.SetPredictor(c.oracle)
			if c.write == nil {
				c.write = func(f *file) { f.writeAt(0, data(3*chunk, 1)) }
			}
			c.write(f)
			f.SendFull()
			f.Interrupt("killed")
			f.close()
			require.NoError(t, w.up.Close()) // waits for what is asking
			w.up = nil
			require.Empty(t, w.mem.Counts().Calls)
		})
	}
}

func TestAnEarlyPartWithAFailedWriteBesideIt(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f := w.openFile("f")
	w.hint("f", 3*chunk)
	f.writeAt(0, data(chunk, 1))
	gate.Await(t, 1)
	f.failWrite(chunk, chunk, 0, unix.ENOSPC)
	gate.Open()
	f.writeAt(2*chunk, data(chunk, 1))
	require.ErrorIs(t, f.commit(), unix.ENOSPC)
	require.LessOrEqual(t, w.mem.Counts().Parts, 1)
	f.writeAt(0, data(3*chunk, 1))
	require.NoError(t, f.commit())
	w.uploaded("f")
}

func TestTheSizeIsAskedForTooLong(t *testing.T) {
	ask := func(t *testing.T) (*harness, *file, *source) {
		w := newHarness(t)
		f := w.openFile("f")
		s := &source{size: 2 * chunk, ok: true, asked: make(chan int64), reply: make(chan bool)}
		f.SetPredictor(s)
		f.writeAt(0, data(2*chunk, 1))
		<-s.asked
		return w, f, s
	}
	t.Run("and the file is completed meanwhile", func(t *testing.T) {
		w, f, s := ask(t)
		require.NoError(t, f.commit())
		before := w.uploaded("f")
		close(s.reply)
		f.close()
		w.idle(0)
		after := w.uploaded("f")
		require.Equal(t, before.FileID, after.FileID)
		require.Equal(t, before.PartIDs, after.PartIDs)

		f = w.openFile("f")
		f.writeAt(0, []byte("!"))
		st := w.noResult("f")
		require.Empty(t, st.UploadID)
		require.Empty(t, st.PartIDs)
	})
	t.Run("and the file is removed meanwhile", func(t *testing.T) {
		w, f, s := ask(t)
		w.remove("f")
		close(s.reply)
		f.close()
		w.idle(0)
		require.Empty(t, w.mem.Counts().Calls)
	})
	t.Run("and the file is written anew meanwhile", func(t *testing.T) {
		w, f, s := ask(t)
		f.replace(data(3*chunk, 2))
		s.size = 3 * chunk
		go func() {
			for range s.asked {
			}
		}()
		close(s.reply)
		require.NoError(t, f.commit())
		f.close()
		w.idle(0)
		w.uploaded("f")
		close(s.asked)
	})
	t.Run("and the mount ends meanwhile", func(t *testing.T) {
		w, f, _ := ask(t)
		w.stop()
		f.close()
		require.Empty(t, w.mem.Counts().Calls)
	})
}

func TestAnEarlyUploadExpires(t *testing.T) {
	w := newHarness(t)
	f := w.openFile("f")
	w.hint("f", 3*chunk)
	f.writeAt(0, data(chunk, 1))
	allParts(t, w, 1)
	w.mem.Expire(w.status("f").UploadID)
	f.writeAt(chunk, data(2*chunk, 1))
	require.NoError(t, f.commit())
	w.uploaded("f")
	require.Equal(t, 2, w.mem.Counts().Created)
}

func TestSendFullSendsWithoutCommitting(t *testing.T) {
	w := newHarness(t)
	f := w.openFile("f")
	w.hint("f", 3*chunk)
	f.writeAt(0, data(2*chunk+5, 1))
	f.SendFull()
	allParts(t, w, 2)
	require.True(t, f.Dirty())
	require.Equal(t, state.Writing, w.status("f").State)
	f.writeAt(2*chunk+5, data(chunk-5, 1))
	f.close()
	w.settle()
	w.uploaded("f")
	require.Equal(t, 3, w.mem.Counts().Parts)
}
