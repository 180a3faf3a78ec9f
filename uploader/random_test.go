//go:build linux

package uploader_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

// identity is the number of a file of the random test, with which its content
// begins and which nothing overwrites: it tells whose content a File has.
const identity = 8

// TestRandomWritersAndFaults lets many writers change, close, rename and remove
// files while the API fails in every way, over several mounts, and then compares
// what is at the API with what is in the tree.
func TestRandomWritersAndFaults(t *testing.T) {
	const rounds, writers = 3, 6
	w := newHarness(t, func(o *uploader.Options) { o.CloseTimeout = patience })
	faults := &weather{mem: w.mem, r: rand.New(rand.NewPCG(11, 12))}
	var files []*randomFile
	for i := range writers {
		// Half of them differ only in their directory.
		dir := fmt.Sprintf("d%d", i)
		require.NoError(t, os.Mkdir(w.path(dir), 0o700))
		f := &randomFile{w: w, r: rand.New(rand.NewPCG(uint64(i), 13)), dir: dir, id: uint64(i + 1), fixed: i%2 == 0}
		f.begin()
		files = append(files, f)
	}
	for range rounds {
		w.mem.Hook(faults.strike)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		var all sync.WaitGroup
		for _, f := range files {
			all.Go(func() {
				for ctx.Err() == nil && !t.Failed() {
					f.step()
				}
				for len(f.handles) > 0 {
					f.release()
				}
			})
		}
		all.Wait()
		cancel()
		// Some of it is not over when the mount ends, in bad weather too.
		w.remount()
	}
	w.mem.Hook(nil)
	w.settle()
	for _, f := range files {
		f.finish()
	}
	w.settle()
	for _, f := range files {
		f.finish()
	}
	w.settle()
	w.idle(0)

	owner := map[string]uint64{}
	for _, f := range files {
		f.waits.Wait()
		st := w.uploaded(f.rel)
		for _, id := range append(w.up.AllSuperseded(t, st), st.FileID) {
			require.Zero(t, owner[id], "%s is the result of two contents", id)
			owner[id] = f.id
		}
	}
	// No File is taken for another content's, and no content has two.
	current := map[string]string{}
	for _, f := range files {
		content, err := os.ReadFile(w.path(f.rel))
		require.NoError(t, err)
		if !f.insisted {
			current[string(content)] = f.rel
		}
	}
	for _, f := range w.mem.Files() {
		content, _ := w.mem.Content(f.ID)
		if id := owner[f.ID]; id != 0 {
			require.Equal(t, binary.BigEndian.Uint64(content), id, "%s has the content of another file", f.ID)
		} else {
			require.Empty(t, current[string(content)], "its content has become %s too, which is known nowhere", f.ID)
		}
	}
	require.Greater(t, len(w.mem.Files()), rounds*writers)
}

// weather makes calls of the API fail.
type weather struct {
	mem *apitest.Memory

	mu sync.Mutex // guards r
	r  *rand.Rand
}

func (f *weather) strike(_ context.Context, c apitest.Call) error {
	f.mu.Lock()
	chance := f.r.IntN(1000)
	f.mu.Unlock()
	switch {
	case chance < 60:
		return apitest.ServerError()
	case chance < 120:
		return apitest.Broken()
	case chance < 125 && c.Stage == apitest.Before && c.Op != apitest.OpFind:
		return apitest.RateLimit(time.Millisecond)
	case chance < 130 && c.Op == apitest.OpPart:
		f.mem.Expire(c.UploadID)
	case chance < 133 && c.Stage == apitest.Before:
		return refusal()
	}
	return nil
}

// randomFile is a file that one goroutine changes, as the kernel does for an
// inode; closes wait beside it.
type randomFile struct {
	w     *harness
	r     *rand.Rand
	dir   string
	rel   string
	id    uint64 // of the file that has the name now
	names int
	fixed bool // it keeps its name and its size

	insisted bool // it was sent again although there may have been a File
	handles  []*randomHandle
	waits    sync.WaitGroup
}

// randomHandle is a handle with the closes that wait on it: the kernel releases it
// only after them.
type randomHandle struct {
	*uploader.Writer
	f       *os.File
	waits   sync.WaitGroup
	waiting atomic.Int64
}

const fixedSize = 5*chunk + 7

// begin makes a file under a name of its own.
func (f *randomFile) begin() {
	f.names++
	f.rel = fmt.Sprintf("%s/%d-%d", f.dir, f.id, f.names)
	if f.fixed {
		f.rel = f.dir + "/same"
	}
	f.openMore()
	head := binary.BigEndian.AppendUint64(nil, f.id)
	f.write(head, 0)
	if f.fixed {
		f.write(f.noise(fixedSize-identity), identity)
	}
}

func (f *randomFile) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(f.r.Uint32())
	}
	return b
}

func (f *randomFile) openMore() {
	h, err := os.OpenFile(f.w.path(f.rel), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(f.w.t, err)
	w, err := f.w.up.OpenWriter(f.w.key(f.rel), f.rel, h, uploader.Found)
	require.NoError(f.w.t, err)
	f.handles = append(f.handles, &randomHandle{Writer: w, f: h})
}

// any is one of the handles.
func (f *randomFile) any() *randomHandle {
	if len(f.handles) == 0 {
		f.openMore()
	}
	return f.handles[f.r.IntN(len(f.handles))]
}

func (f *randomFile) write(b []byte, off int64) {
	h := f.any()
	_, err := h.Write(off, b, func() (int64, error) {
		n, err := h.f.WriteAt(b, off)
		return int64(n), err
	})
	require.NoError(f.w.t, err)
}

// place is a range that may be written.
func (f *randomFile) place() (off, n int) {
	end := 9 * chunk
	if f.fixed {
		end = fixedSize
	}
	off = identity + f.r.IntN(end-identity)
	return off, 1 + f.r.IntN(min(end-off, 3*chunk))
}

// release ends a handle, the oldest on which no close waits if there is one. Who
// has changed the content since such a close has another descriptor, and closes it
// at last.
func (f *randomFile) release() {
	i := max(0, slices.IndexFunc(f.handles, func(h *randomHandle) bool { return h.waiting.Load() == 0 }))
	h := f.handles[i]
	f.handles = slices.Delete(f.handles, i, i+1)
	if h.waiting.Load() > 0 {
		h.SendFull()
	}
	h.waits.Wait()
	h.Close()
	h.f.Close()
}

func (f *randomFile) step() {
	t := f.w.t
	switch k := f.r.IntN(100); {
	case k < 45:
		off, n := f.place()
		f.write(f.noise(n), int64(off))
	case k < 53 && !f.fixed:
		h, size := f.any(), int64(identity+f.r.IntN(9*chunk))
		require.NoError(t, h.Resize(size, func() error { return h.f.Truncate(size) }))
	case k < 68:
		f.close()
	case k < 72:
		f.any().CommitLater()
	case k < 76:
		f.any().SendFull()
	case k < 78:
		f.any().Interrupt("killed")
	case k < 84:
		if len(f.handles) > 0 {
			f.release()
		}
	case k < 88:
		if len(f.handles) < 3 {
			f.openMore()
		}
	case k < 90: // a write that fails, and is made good
		h := f.any()
		off, n := f.place()
		_, err := h.Write(int64(off), make([]byte, n), func() (int64, error) { return 0, syscall.EIO })
		require.ErrorIs(t, err, syscall.EIO)
		require.ErrorIs(t, h.Lost(), syscall.EIO)
		f.write(f.noise(n), int64(off))
		require.NoError(t, h.Lost())
	case k < 92:
		h := f.any()
		_, err := h.Change(identity, 100, func() (int64, error) { return 0, syscall.ENOSPC })
		require.ErrorIs(t, err, syscall.ENOSPC)
	case k < 95 && !f.fixed:
		from := f.rel
		f.names++
		f.rel = fmt.Sprintf("%s/%d-%d", f.dir, f.id, f.names)
		require.NoError(t, os.Rename(f.w.path(from), f.w.path(f.rel)))
		f.w.up.Renamed(from, f.rel, f.w.key(f.rel), false)
	case k < 96 && !f.fixed:
		f.remove()
	default:
		st := f.w.status(f.rel)
		require.False(t, st.State == state.Writing && st.FileID != "", "the result of an earlier content is shown")
	}
}

// close waits for a commit beside the writer.
func (f *randomFile) close() {
	h := f.any()
	h.waits.Add(1)
	h.waiting.Add(1)
	f.waits.Add(1)
	go func() {
		defer f.waits.Done()
		defer h.waits.Done()
		defer h.waiting.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Commit(ctx); errors.Is(err, context.DeadlineExceeded) {
			f.w.t.Errorf("%s: the close was never answered", f.rel)
		}
	}()
	if f.r.IntN(2) == 0 {
		h.waits.Wait()
	}
}

// remove unlinks the file and begins another.
func (f *randomFile) remove() {
	key := f.w.key(f.rel)
	require.NoError(f.w.t, os.Remove(f.w.path(f.rel)))
	f.w.up.Removed(key, f.rel, true)
	for len(f.handles) > 0 {
		f.release()
	}
	f.id += 1000
	f.begin()
}

// finish brings the file to where it must be completed.
func (f *randomFile) finish() {
	t := f.w.t
	st := f.w.status(f.rel)
	if strings.Contains(st.Error, "delete all but one") {
		off, n := f.place()
		f.write(f.noise(n), int64(off))
		f.release()
		f.w.settle()
		st = f.w.status(f.rel)
	}
	switch st.State {
	case state.Failed, state.Interrupted:
		f.insisted = f.insisted || strings.Contains(st.Error, "its answer was lost")
		require.NoError(t, f.w.up.Retry(f.rel), st.Error)
	case state.Completed:
		content, err := os.ReadFile(f.w.path(f.rel))
		require.NoError(t, err)
		got, _ := f.w.mem.Content(st.FileID)
		require.True(t, bytes.Equal(content, got))
	default:
		require.Failf(t, "not settled", "%s is %s", f.rel, st.State)
	}
}
