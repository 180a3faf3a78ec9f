package uploader_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

// newPutWorld is a world without a tree. Its files lie anywhere.
func newPutWorld(t *testing.T) *harness {
	return newHarness(t, func(o *uploader.Options) { o.Tree = nil })
}

// userFile writes a file of the user's and returns its path.
func (w *harness) userFile(name string, content []byte) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name)
	require.NoError(w.t, os.WriteFile(path, content, 0o400))
	return path
}

// openPut prepares a put that is closed with the test, if not before.
func (w *harness) openPut(path string, spec api.Spec) *uploader.Put {
	w.t.Helper()
	f, err := os.Open(path)
	require.NoError(w.t, err)
	defer f.Close()
	p, err := w.up.OpenPut(f, spec)
	require.NoError(w.t, err)
	return p
}

func run(p *uploader.Put) (*uploader.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.Run(ctx)
}

// putWhole sends a file, whatever an earlier put did.
func (w *harness) putWhole(path string, spec api.Spec) *uploader.Status {
	w.t.Helper()
	p := w.openPut(path, spec)
	defer p.Close()
	st, err := run(p)
	require.NoError(w.t, err)
	require.Equal(w.t, state.Completed, st.State)
	return st
}

// stored checks what the API has as the File.
func (w *harness) stored(st *uploader.Status, want []byte) {
	w.t.Helper()
	got, ok := w.mem.Content(st.FileID)
	require.True(w.t, ok)
	require.True(w.t, bytes.Equal(want, got), "the File is not what was put")
}

func TestPut(t *testing.T) {
	w := newPutWorld(t)
	content := data(3*chunk+5, 1)
	path := w.userFile("train.jsonl", content)
	p := w.openPut(path, api.Spec{})
	_, err := os.Stat(path)
	require.NoError(t, err)
	st, err := run(p)
	require.NoError(t, err)
	w.stored(st, content)
	require.Equal(t, path, st.Path)
	require.Equal(t, "train.jsonl", st.Filename)
	require.Equal(t, "text/jsonl", st.MimeType)
	require.Equal(t, uploader.DefaultPurpose, st.Purpose)
	require.Equal(t, 4, st.Acked)
	require.NotEmpty(t, st.MD5)
	require.NoError(t, p.Forget())
	p.Close()
	w.idle(0)

	// What was passed on is forgotten: another put is another File.
	again := w.putWhole(path, api.Spec{Filename: "b\xff", Purpose: "batch", MimeType: "text/plain"})
	require.NotEqual(t, st.FileID, again.FileID)
	require.Equal(t, "b\uFFFD", again.Filename)
	require.Equal(t, "batch", again.Purpose)
	require.Equal(t, "text/plain", again.MimeType)
}

func TestPutAttributesAreNotRead(t *testing.T) {
	w := newPutWorld(t)
	path := w.userFile("f", data(10, 1))
	require.NoError(t, unix.Setxattr(path, uploader.AttrPrefix+uploader.AttrPurpose, []byte("evals"), 0))
	require.Equal(t, uploader.DefaultPurpose, w.putWhole(path, api.Spec{}).Purpose)
}

func TestPutThatWasCompletedEarlier(t *testing.T) {
	w := newPutWorld(t)
	path := w.userFile("f", data(3*chunk, 1))
	earlier := func(spec api.Spec) *uploader.Status {
		p := w.openPut(path, spec)
		defer p.Close()
		st, err := p.Earlier(t.Context())
		require.NoError(t, err)
		return st
	}
	require.Nil(t, earlier(api.Spec{}))
	first := w.putWhole(path, api.Spec{})
	w.crash()
	again := earlier(api.Spec{})
	require.Equal(t, first.FileID, again.FileID)
	require.Equal(t, first.PartIDs, again.PartIDs)
	require.Len(t, w.mem.Files(), 1)
	exists, err := w.up.FileExists(t.Context(), first.FileID)
	require.NoError(t, err)
	require.True(t, exists)

	// It can be sent all the same, and the last File counts.
	second := w.putWhole(path, api.Spec{})
	require.NotEqual(t, first.FileID, second.FileID)
	require.Equal(t, second.FileID, earlier(api.Spec{}).FileID)

	// The times do not matter, the bytes do.
	require.NoError(t, os.Chtimes(path, time.Now(), time.Now()))
	require.NotNil(t, earlier(api.Spec{}))
	fi, err := os.Stat(path)
	require.NoError(t, err)
	changed := data(3*chunk, 2)
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.WriteFile(path, changed, 0o600))
	require.NoError(t, os.Chtimes(path, fi.ModTime(), fi.ModTime()))
	require.Nil(t, earlier(api.Spec{}))
	w.stored(w.putWhole(path, api.Spec{}), changed)
	require.Nil(t, earlier(api.Spec{Purpose: "evals"}))
	require.Nil(t, earlier(api.Spec{}), "another declaration has been asked for since")
}

func TestPutIsOfTheFileThatWasOpened(t *testing.T) {
	w := newPutWorld(t)
	path := w.userFile("f", data(3*chunk, 1))
	w.putWhole(path, api.Spec{})
	require.NoError(t, os.Chmod(path, 0o600))
	p := w.openPut(path, api.Spec{})
	defer p.Close()
	require.NoError(t, os.WriteFile(path, data(chunk, 2), 0o600))
	_, err := p.Earlier(t.Context())
	require.ErrorIs(t, err, uploader.ErrChanged)
	_, err = run(p)
	require.ErrorIs(t, err, uploader.ErrChanged)
	require.Len(t, w.mem.Files(), 1)
}

// cutOff puts a file until n of its parts are acknowledged, and then kills the
// process.
func (w *harness) cutOff(path string, spec api.Spec, n int, meanwhile ...func()) {
	w.t.Helper()
	gate := w.mem.Hold(apitest.OpPart, apitest.Before)
	p := w.openPut(path, spec)
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx)
		ended <- err
	}()
	for range n {
		gate.Pass()
	}
	require.Eventually(w.t, func() bool { return p.Status().Acked == n }, patience, time.Millisecond)
	enough := errors.New("enough")
	cancel(enough)
	require.ErrorIs(w.t, <-ended, enough)
	p.Close()
	w.crash(meanwhile...)
	gate.Open()
	w.mem.Hold(apitest.OpPart, apitest.Before).Open()
}

func TestPutGoesOn(t *testing.T) {
	w := newPutWorld(t)
	content := data(5*chunk, 1)
	path := w.userFile("f", content)
	w.cutOff(path, api.Spec{}, 2)
	before := w.mem.Counts()
	p := w.openPut(path, api.Spec{})
	require.Equal(t, 2, p.Status().Acked)
	st, err := run(p)
	p.Close()
	require.NoError(t, err)
	w.stored(st, content)
	require.Equal(t, 1, w.mem.Counts().Created)
	require.Equal(t, before.Parts+3, w.mem.Counts().Parts)
}

func TestPutGoesOnWithWhatStillMatches(t *testing.T) {
	w := newPutWorld(t)
	content := data(5*chunk, 1)
	path := w.userFile("f", content)
	w.cutOff(path, api.Spec{}, 4, func() {
		for i := 0; i < len(content); i += 2 * chunk {
			content[i] ^= 1
		}
		require.NoError(t, os.WriteFile(path, content, 0o600))
	})
	before := w.mem.Counts()
	w.stored(w.putWhole(path, api.Spec{}), content)
	require.Equal(t, 1, w.mem.Counts().Created)
	// Which of the five have not been sent is chance.
	require.Contains(t, []int{before.Parts + 3, before.Parts + 4}, w.mem.Counts().Parts)
}

func TestPutBeginsAnew(t *testing.T) {
	for name, c := range map[string]struct {
		spec      api.Spec
		meanwhile func(path string)
	}{
		"declared otherwise": {spec: api.Spec{Filename: "g"}},
		"another size": {meanwhile: func(path string) {
			require.NoError(t, os.WriteFile(path, data(4*chunk, 1), 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newPutWorld(t)
			path := w.userFile("f", data(5*chunk, 1))
			w.cutOff(path, api.Spec{}, 2)
			if c.meanwhile != nil {
				c.meanwhile(path)
			}
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			w.stored(w.putWhole(path, c.spec), content)
			require.Equal(t, 2, w.mem.Counts().Created)
			if c.meanwhile == nil {
				require.Eventually(t, func() bool { return len(w.mem.Uploads("cancelled")) == 1 }, patience, time.Millisecond)
			}
		})
	}
}

func TestPutOfWhatChanges(t *testing.T) {
	for name, change := range map[string]func(f *os.File, content []byte) []byte{
		"overwritten": func(f *os.File, content []byte) []byte {
			content[0] ^= 1
			_, err := f.WriteAt(content[:1], 0)
			require.NoError(t, err)
			return content
		},
		"appended": func(f *os.File, content []byte) []byte {
			_, err := f.WriteAt([]byte("more"), int64(len(content)))
			require.NoError(t, err)
			return append(content, "more"...)
		},
		"truncated": func(f *os.File, content []byte) []byte {
			require.NoError(t, f.Truncate(chunk/2))
			return content[:chunk/2]
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newPutWorld(t)
			content := data(5*chunk, 1)
			path := w.userFile("f", content)
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			defer f.Close()
			gate := w.mem.Hold(apitest.OpPart, apitest.Before)
			p := w.openPut(path, api.Spec{})
			ended := make(chan error, 1)
			go func() {
				_, err := run(p)
				ended <- err
			}()
			gate.Pass()
			content = change(f, content)
			require.ErrorIs(t, <-ended, uploader.ErrChanged, "no part has to be answered before it is seen")
			gate.Open()
			p.Close()
			require.Empty(t, w.mem.Files())

			w.remount()
			w.stored(w.putWhole(path, api.Spec{}), content)
			require.Len(t, w.mem.Files(), 1)
		})
	}
}

func TestPutOfWhatChangesAtItsEnd(t *testing.T) {
	for _, stage := range []apitest.Stage{apitest.Before, apitest.After} {
		w := newPutWorld(t)
		content := data(2*chunk, 1)
		path := w.userFile("f", content)
		gate := w.mem.Hold(apitest.OpComplete, stage)
		p := w.openPut(path, api.Spec{})
		type result struct {
			st  *uploader.Status
			err error
		}
		ended := make(chan result, 1)
		go func() {
			st, err := run(p)
			ended <- result{st, err}
		}()
		gate.Await(t, 1)
		require.NoError(t, os.WriteFile(path, data(2*chunk, 2), 0o600))
		require.Eventually(t, func() bool { return p.Status().State == state.Writing }, patience, time.Millisecond)
		gate.Open()
		r := <-ended
		p.Close()
		require.NoError(t, r.err)
		w.stored(r.st, content)
	}
}

func TestPutSaysWhyItFailed(t *testing.T) {
	w := newPutWorld(t)
	path := w.userFile("f", data(3*chunk, 1))
	w.mem.Fail(apitest.OpComplete, apitest.Before, apitest.Quota())
	p := w.openPut(path, api.Spec{})
	_, err := run(p)
	require.Equal(t, api.Quota, api.KindOf(err))
	p.Close()
	// Nothing has to be sent again.
	before := w.mem.Counts().Parts
	w.putWhole(path, api.Spec{})
	require.Equal(t, before, w.mem.Counts().Parts)
}

func TestPutWhoseAnswerWasLostWithTheProcess(t *testing.T) {
	w := newPutWorld(t)
	path := w.userFile("f", data(3*chunk, 1))
	gate := w.mem.Hold(apitest.OpComplete, apitest.After)
	p := w.openPut(path, api.Spec{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx)
		ended <- err
	}()
	gate.Await(t, 1)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	p.Close()
	w.crash()
	gate.Open()
	st := w.putWhole(path, api.Spec{})
	require.Len(t, w.mem.Files(), 1)
	require.Equal(t, w.mem.Files()[0].ID, st.FileID)
	require.Equal(t, 2, w.mem.Counts().Calls[apitest.OpComplete])
}

func TestPutOneAtATime(t *testing.T) {
	w := newPutWorld(t)
	path := w.userFile("f", data(10, 1))
	p := w.openPut(path, api.Spec{})
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	_, err = w.up.OpenPut(f, api.Spec{})
	require.ErrorContains(t, err, "already being sent")
	p.Close()
	p, err = w.up.OpenPut(f, api.Spec{})
	require.NoError(t, err)
	p.Close()

	dir, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer dir.Close()
	_, err = w.up.OpenPut(dir, api.Spec{})
	require.ErrorContains(t, err, "not a regular file")
}
