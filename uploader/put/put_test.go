package put_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/put"
	"uploadfs/uploader/state"
)

// recorder is an Observer that remembers what it is told.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) add(event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}

func (r *recorder) Begin(j *put.Job) { r.add("begin " + j.Name) }

func (r *recorder) Unchanged(j *put.Job, st *uploader.Status) {
	r.add("unchanged " + j.Name + " " + string(st.State))
}

func (r *recorder) End(j *put.Job, st *uploader.Status) {
	if st == nil {
		r.add("end " + j.Name)
		return
	}
	r.add("end " + j.Name + " " + string(st.State))
}

// testPut is a state directory and an API to put files to.
type testPut struct {
	*testing.T
	dir      *put.Dir
	path     string // of dir
	sender   *put.Sender
	backend  *apitest.Memory
	observed *recorder
}

func newPut(t *testing.T) *testPut {
	p := &testPut{T: t, path: filepath.Join(t.TempDir(), "state"), backend: apitest.NewMemory(), observed: new(recorder)}
	var err error
	p.dir, err = put.OpenDir(p.path)
	require.NoError(t, err)
	acks := put.NewAcks(p.backend)
	up, err := p.dir.OpenUploader("https:-api", uploader.Options{Backend: acks, PartSize: api.MinPart, Parallel: 2})
	require.NoError(t, err)
	t.Cleanup(func() { up.Close() })
	p.sender = &put.Sender{Dir: p.dir, Uploader: up, Acks: acks, Observer: p.observed, Parallel: 1}
	return p
}

// file writes a file and returns its job.
func (p *testPut) file(name, content string) *put.Job {
	path := filepath.Join(p.TempDir(), name)
	require.NoError(p, os.WriteFile(path, []byte(content), 0o600))
	return &put.Job{Name: name, Path: path}
}

func TestSenderSendsEachJob(t *testing.T) {
	p := newPut(t)
	refused := p.file("b", "b")
	refused.Check = func(fi fs.FileInfo) error { return errors.New("refused " + fi.Name()) }
	jobs := []*put.Job{p.file("a", "hello"), refused, p.file("c", "world")}
	p.sender.Start(t.Context(), jobs)()
	for _, j := range []*put.Job{jobs[0], jobs[2]} {
		st, err := j.Wait()
		require.NoError(t, err)
		require.Equal(t, state.Completed, st.State)
		require.Equal(t, j.Name, st.Path)
		require.NotEmpty(t, st.FileID)
		require.False(t, j.Unchanged())
	}
	st, err := refused.Wait()
	require.EqualError(t, err, "refused b")
	require.Nil(t, st)
	require.Nil(t, refused.Status())
	require.ElementsMatch(t, []string{"begin a", "end a completed", "begin c", "end c completed"}, p.observed.events)

	left, err := filepath.Glob(filepath.Join(p.path, "sending", "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestSenderSendsNothingTwice(t *testing.T) {
	p := newPut(t)
	path := p.file("a", "hello").Path
	send := func(again bool) (string, bool) {
		j := &put.Job{Name: "a", Path: path, Again: again}
		p.sender.Start(t.Context(), []*put.Job{j})()
		st, err := j.Wait()
		require.NoError(t, err)
		require.Equal(t, "a", st.Path)
		return st.FileID, j.Unchanged()
	}
	first, _ := send(false)
	for range 2 {
		id, unchanged := send(false)
		require.True(t, unchanged)
		require.Equal(t, first, id)
	}
	require.Equal(t, []string{"begin a", "end a completed", "unchanged a completed", "unchanged a completed"}, p.observed.events)

	second, unchanged := send(true)
	require.False(t, unchanged)
	require.NotEqual(t, first, second)

	// A File that is gone is made anew, and one that may be there is not.
	p.backend.DeleteFile(second)
	third, unchanged := send(false)
	require.False(t, unchanged)
	require.NotEqual(t, second, third)
	p.backend.Fail(apitest.OpGet, apitest.Before, apitest.Denied())
	j := &put.Job{Name: "a", Path: path}
	p.sender.Start(t.Context(), []*put.Job{j})()
	_, err := j.Wait()
	require.Equal(t, api.Denied, api.KindOf(err))
	require.ErrorContains(t, err, "whether "+third+" still exists cannot be told")
	require.Equal(t, 3, p.backend.Counts().Completed)
}

func TestSpoolIsRemovedWithTheResult(t *testing.T) {
	p := newPut(t)
	j := &put.Job{Name: "-", Spec: api.Spec{Filename: "x"}}
	require.NoError(t, j.Spool(t.Context(), p.dir, strings.NewReader("hello")))
	require.FileExists(t, j.Path)
	p.sender.Start(t.Context(), []*put.Job{j})()
	st, err := j.Wait()
	require.NoError(t, err)
	require.Equal(t, "x", st.Filename)
	require.NoFileExists(t, j.Path)
}

func TestSpoolStopsWithItsContext(t *testing.T) {
	p := newPut(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	go func() {
		w.Write([]byte("half"))
		cancel()
	}()
	j := new(put.Job)
	require.ErrorContains(t, j.Spool(ctx, p.dir, r), "stopped before its end")
	left, err := filepath.Glob(filepath.Join(p.path, "spool", "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestOpenDirRemovesWhatKilledPutsLeft(t *testing.T) {
	p := newPut(t)
	at := func(names ...string) string { return filepath.Join(append([]string{p.path}, names...)...) }
	old, fresh, lock := at("spool", "stdin-1.partial"), at("spool", "stdin-2.partial"), at("sending", "1-2")
	for _, name := range []string{old, fresh, lock} {
		require.NoError(t, os.WriteFile(name, nil, 0o600))
	}
	before := time.Now().Add(-25 * time.Hour)
	require.NoError(t, os.Chtimes(old, before, before))
	_, err := put.OpenDir(p.path)
	require.NoError(t, err)
	require.NoFileExists(t, old)
	require.NoFileExists(t, lock)
	require.FileExists(t, fresh)
}

func TestStoppedJobsHaveTheCause(t *testing.T) {
	p := newPut(t)
	cause := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	stop(cause)
	jobs := []*put.Job{p.file("a", "a")}
	p.sender.Start(ctx, jobs)()
	_, err := jobs[0].Wait()
	require.ErrorIs(t, err, cause)
}

func TestPutGivesUpOnSilence(t *testing.T) {
	gaveUp := make(chan error, 1)
	acks := put.NewAcks(apitest.NewMemory())
	stop := acks.Watch(time.Millisecond, func(err error) { gaveUp <- err })
	defer stop()
	defer put.Expect(acks)()
	require.ErrorContains(t, <-gaveUp, "nothing was acknowledged for 1ms")
}

func TestUnsafeDirectories(t *testing.T) {
	const sticky = fs.ModeSticky
	for _, c := range []struct {
		mode       fs.FileMode
		owner, uid int
		why        string
	}{
		{0o700, 1000, 1000, ""},
		{0o755, 1000, 1000, ""},
		{0o755, 0, 1000, ""},
		{sticky | 0o777, 0, 1000, ""},
		{sticky | 0o777, 1000, 1000, ""},
		{0o775, 1000, 1000, "can be written to"},
		{0o702, 0, 0, "can be written to"},
		{0o755, 1001, 1000, "belongs to user 1001, not to you (1000)"},
		{0o700, 1000, 0, "belongs to user 1000, not to you (0)"},
		{sticky | 0o777, 1001, 1000, "belongs to user 1001"},
	} {
		why := put.Unsafe(c.mode, c.owner, c.uid)
		if c.why == "" {
			require.Empty(t, why, c)
			continue
		}
		require.Contains(t, why, c.why, c)
	}
}
