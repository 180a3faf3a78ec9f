//go:build linux

package uploader_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// openBlind opens a file as in passthrough: what is written goes past the daemon,
// through the second handle.
func (w *harness) openBlind(rel string) (*file, *os.File) {
	w.t.Helper()
	through, err := os.OpenFile(w.path(rel), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { through.Close() })
	f, err := os.Open(w.path(rel))
	require.NoError(w.t, err)
	info, err := backing.StatFd(int(f.Fd()))
	require.NoError(w.t, err)
	writer, err := w.up.OpenPolledWriter(info.Key, rel, f, uploader.Found)
	require.NoError(w.t, err)
	h := &file{writer, w, f, rel, info.Key}
	w.open[h] = true
	return h, through
}

func TestBlindWritesAreFound(t *testing.T) {
	w := newHarness(t)
	f, through := w.openBlind("f")
	require.False(t, f.Dirty())
	_, err := through.WriteAt(data(5*chunk+3, 1), 0)
	require.NoError(t, err)
	require.True(t, f.Dirty())
	require.NoError(t, f.commit())
	first := w.uploaded("f")
	require.False(t, f.Dirty())

	// A chmod is no change.
	require.NoError(t, os.Chmod(w.path("f"), 0o640))
	require.False(t, f.Dirty())

	_, err = through.WriteAt([]byte("!"), 3*chunk)
	require.NoError(t, err)
	require.Empty(t, w.noResult("f").UploadID, "a look at the attributes is enough to see it")
	require.NoError(t, f.commit())
	require.Equal(t, []string{first.FileID}, w.uploaded("f").Superseded)
	require.NoError(t, through.Close())
	f.close()
	w.idle(0)
}

func TestABlindChangeDuringTheSending(t *testing.T) {
	for _, op := range []apitest.Op{apitest.OpCreate, apitest.OpPart} {
		for _, stage := range []apitest.Stage{apitest.Before, apitest.After} {
			w := newHarness(t)
			gate := w.mem.Hold(op, stage)
			f, through := w.openBlind("f")
			_, err := through.WriteAt(data(5*chunk, 1), 0)
			require.NoError(t, err)
			done := f.committing()
			gate.Await(t, 1)
			_, err = through.WriteAt(data(chunk, 2), 2*chunk+5)
			require.NoError(t, err)
			gate.Open()
			require.NoError(t, through.Close())
			require.NoError(t, f.commit())
			require.NoError(t, done.await(t))
			f.close()
			w.idle(0)
			w.uploaded("f")
			require.Len(t, w.mem.Files(), 1)
		}
	}
}

func TestAMappingOutlivesItsHandle(t *testing.T) {
	w := newHarness(t)
	f, through := w.openBlind("f")
	_, err := through.WriteAt(data(8*chunk, 1), 0)
	require.NoError(t, err)
	mapped, err := unix.Mmap(int(through.Fd()), 0, 8*chunk, unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	require.NoError(t, through.Close())
	require.NoError(t, f.commit())
	f.close()
	copy(mapped[5*chunk:], "stored after the last close")
	require.NoError(t, unix.Munmap(mapped))
	w.idle(0)
	w.uploaded("f")
}

func TestABlindFileIsRemoved(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	f, through := w.openBlind("f")
	_, err := through.WriteAt(data(5*chunk, 1), 0)
	require.NoError(t, err)
	done := f.committing()
	gate.Await(t, 1)
	w.remove("f")
	require.Equal(t, api.Removed, api.KindOf(done.await(t)))
	require.NoError(t, through.Close())
	gate.Open()
	f.close()
	w.idle(0)
	require.Empty(t, w.mem.Files())
}

func TestTheMountEndsWithABlindFileOpen(t *testing.T) {
	w := newHarness(t)
	f, through := w.openBlind("f")
	_, err := through.WriteAt(data(5*chunk, 1), 0)
	require.NoError(t, err)
	w.stop()
	f.close()
	require.NoError(t, through.Close())
	w.start()
	require.Equal(t, state.Interrupted, w.status("f").State)
	require.NoError(t, w.up.Retry("f"))
	w.settle()
	w.uploaded("f")
}
