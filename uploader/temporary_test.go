//go:build linux

package uploader_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/state"
)

// create opens a new file whose open has this origin.
func (w *harness) create(rel string, from uploader.Origin) *file {
	w.t.Helper()
	f, err := os.OpenFile(w.path(rel), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(w.t, err)
	h, err := w.handle(f, rel, from)
	require.NoError(w.t, err)
	return h
}

// putTemporary makes a file as a program that renames it when it is finished.
func (w *harness) putTemporary(rel string, content []byte) {
	w.t.Helper()
	f := w.create(rel, uploader.Temporary)
	f.writeAt(0, content)
	require.NoError(w.t, f.commit())
	f.close()
	require.Equal(w.t, state.Held, w.noResult(rel).State)
}

// link gives a file another name.
func (w *harness) link(from, to string) {
	w.t.Helper()
	require.NoError(w.t, os.Link(w.path(from), w.path(to)))
	w.up.Linked(w.key(to), to)
}

func TestATemporaryFileIsSentUnderItsFinalName(t *testing.T) {
	for name, finish := range map[string]func(w *harness){
		"renamed": func(w *harness) { w.rename("XXMRJKS6", "h.jsonl") },
		"renamed twice": func(w *harness) {
			w.rename("XXMRJKS6", "h.tmp")
			require.Equal(w.t, state.Held, w.status("h.tmp").State)
			w.rename("h.tmp", "h.jsonl")
		},
		"linked": func(w *harness) {
			w.link("XXMRJKS6", "h.lock")
			require.Equal(w.t, state.Held, w.status("h.lock").State)
			w.link("XXMRJKS6", "h.jsonl")
			w.remove("XXMRJKS6")
		},
		"exchanged": func(w *harness) {
			require.NoError(w.t, w.put("h.jsonl", nil))
			w.exchange("XXMRJKS6", "h.jsonl")
		},
		"excluded meanwhile": func(w *harness) {
			w.rename("XXMRJKS6", "h~")
			require.Equal(w.t, state.Excluded, w.status("h~").State)
			w.rename("h~", "h.jsonl")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, patient)
			w.putTemporary("XXMRJKS6", data(2*chunk, 1))
			require.Empty(t, w.mem.Counts().Calls)
			finish(w)
			w.settle()
			st := w.uploaded("h.jsonl")
			require.Equal(t, "h.jsonl", st.Filename)
			require.Equal(t, "text/jsonl", st.MimeType)
			require.Len(t, w.mem.Files(), 1)

			// It is a file like any other now: its close tells the truth.
			require.NoError(t, w.put("h.jsonl", data(chunk, 2)))
			w.uploaded("h.jsonl")
		})
	}
}

func TestATemporaryFileIsKnownAfterACrash(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, os.Mkdir(w.path("d"), 0o700))
	empty := w.create("d/empty", uploader.Temporary)
	w.rename("d", "e")
	empty.close()
	w.putTemporary("e/held", data(chunk, 1))
	open := w.create("e/open", uploader.Temporary)
	open.writeAt(0, data(chunk, 2))
	w.crash()
	require.Equal(t, state.Held, w.status("e/held").State)
	require.Equal(t, state.Interrupted, w.status("e/open").State)
	for _, name := range []string{"e/empty", "e/open"} {
		require.NoError(t, w.put(name, data(chunk, 3)))
		require.Equal(t, state.Held, w.status(name).State, "%s was made as a temporary file", name)
	}
	w.rename("e", "f")
	require.Empty(t, w.mem.Counts().Calls, "a directory's name is not the file's")
	for _, name := range []string{"empty", "held", "open"} {
		w.rename("f/"+name, "f/"+name+".txt")
	}
	w.settle()
	for _, name := range []string{"empty", "held", "open"} {
		require.Equal(t, name+".txt", w.uploaded("f/"+name+".txt").Filename)
	}
}

// TestTheNameIsNewAfterACrash: the daemon was killed between the rename and its record.
func TestTheNameIsNewAfterACrash(t *testing.T) {
	w := newHarness(t, patient)
	for _, name := range []string{"a", "b", "c"} {
		w.putTemporary(name, data(chunk, name[0]))
	}
	require.NoError(t, os.Mkdir(w.path("d"), 0o700))
	w.crash(func() {
		require.NoError(t, os.Rename(w.path("a"), w.path("a.txt")))
		require.NoError(t, os.Rename(w.path("b"), w.path("b.lock")))
		require.NoError(t, os.Rename(w.path("c"), w.path("d/c")))
	})
	for name, want := range map[string]state.State{
		"a.txt":  state.Completed,
		"b.lock": state.Held, // that is no final name
		"d/c":    state.Held, // it has the name that it had
	} {
		require.Equal(t, state.Interrupted, w.status(name).State, "its times have changed")
		require.NoError(t, w.put(name, data(chunk, 1)))
		require.Equal(t, want, w.status(name).State, name)
	}
}

func TestATemporaryFileThatIsNotRenamed(t *testing.T) {
	w := newHarness(t, names(uploader.NamePolicy{HoldFor: time.Millisecond}))
	f := w.create("f", uploader.Temporary)
	f.writeAt(0, data(2*chunk, 1))
	require.NoError(t, f.commit())
	f.close()
	w.idle(0)
	require.Equal(t, "f", w.uploaded("f").Filename)
}

// TestATemporaryFileThatWasSentKeepsItsName: the name that it was sent under is its final
// one, so the close of a program that overwrites it tells the truth. Also after a crash.
func TestATemporaryFileThatWasSentKeepsItsName(t *testing.T) {
	for name, send := range map[string]func(w *harness){
		"retried": func(w *harness) { require.NoError(t, w.up.Retry("f")) },
		"drained": func(w *harness) {
			ctx, cancel := timeout()
			defer cancel()
			require.Empty(t, w.up.Drain(ctx))
		},
		"interrupted and retried": func(w *harness) {
			f := w.openFile("f")
			f.writeAt(0, data(chunk, 2))
			w.crash()
			require.Equal(t, state.Interrupted, w.status("f").State)
			require.NoError(t, w.up.Retry("f"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, patient)
			w.putTemporary("f", data(2*chunk, 1))
			send(w)
			w.settle()
			w.uploaded("f")
			require.NoError(t, w.put("f", data(chunk, 3)))
			w.uploaded("f")
			w.crash()
			require.NoError(t, w.put("f", data(chunk, 4)))
			w.uploaded("f")
		})
	}
}

func TestTemporaryFilesAreNotHeld(t *testing.T) {
	w := newHarness(t, names(uploader.NamePolicy{HoldFor: time.Hour, NoHold: true}))
	f := w.create("f", uploader.Temporary)
	f.writeAt(0, data(2*chunk, 1))
	require.NoError(t, f.commit())
	f.close()
	w.uploaded("f")
	w.opts.Names.NoHold = false
	w.remount()
	require.NoError(t, w.put("f", data(chunk, 2)))
	require.Equal(t, state.Held, w.status("f").State, "the next mount decides anew")
}

func TestALockIsHeldIfItsOpenWasExclusive(t *testing.T) {
	w := newHarness(t, patient)
	f := w.create("index.lock", uploader.ExclusiveReadWrite)
	f.writeAt(0, data(chunk, 1))
	require.NoError(t, f.commit())
	f.close()
	require.Equal(t, state.Held, w.status("index.lock").State)
	w.rename("index.lock", "index")
	w.settle()
	require.Equal(t, "index", w.uploaded("index").Filename)
	require.NoError(t, w.put("poetry.lock", data(chunk, 2)))
	w.uploaded("poetry.lock")
}

// TestNothingOfATemporaryFileGoesEarly: its size may be known, its name is not.
func TestNothingOfATemporaryFileGoesEarly(t *testing.T) {
	w := newHarness(t, patient)
	f := w.create("f", uploader.Temporary)
	asked := make(chan int64, 100)
	f.SetPredictor(&source{size: 6 * chunk, ok: true, asked: asked})
	f.writeAt(0, data(3*chunk, 1))
	require.Empty(t, asked)
	w.rename("f", "g")
	f.writeAt(3*chunk, data(2*chunk, 1))
	<-asked // with its final name it is one like any other
	f.writeAt(5*chunk, data(chunk, 1))
	require.NoError(t, f.commit())
	f.close()
	w.uploaded("g")
	require.Len(t, w.mem.Uploads("completed"), 1)
}

// outage refuses each Create until it ends. tried receives one value for each.
func (w *harness) outage() (tried chan struct{}, end func()) {
	tried = make(chan struct{})
	over := make(chan struct{})
	w.mem.Hook(func(ctx context.Context, c apitest.Call) error {
		if c.Op != apitest.OpCreate || c.Stage != apitest.Before {
			return nil
		}
		select {
		case <-over:
			return nil
		case <-ctx.Done():
		case tried <- struct{}{}:
		}
		return apitest.RateLimit(time.Millisecond)
	})
	return tried, func() { close(over) }
}

func TestAFileThatWaitsIsSentUnderTheNameItHasThen(t *testing.T) {
	w := newHarness(t)
	require.NoError(t, os.Mkdir(w.path("d"), 0o700))
	tried, end := w.outage()
	f := w.openFile("d/f.txt")
	f.replace(data(2*chunk, 1))
	done := f.committing()
	<-tried
	w.rename("d/f.txt", "d/f.jsonl")
	w.rename("d", "e")
	<-tried
	require.Empty(t, w.noResult("e/f.jsonl").Filename, "nothing has been sent")
	end()
	require.NoError(t, done.await(t))
	f.close()
	st := w.uploaded("e/f.jsonl")
	require.Equal(t, "f.jsonl", st.Filename)
	require.Equal(t, "text/jsonl", st.MimeType)
}

func TestAFileThatWaitsIsNotSentUnderAHeldName(t *testing.T) {
	for name, c := range map[string]struct {
		to   string
		want state.State
	}{
		"held": {"f.tmp", state.Held}, "excluded": {"f.txt~", state.Excluded},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, patient)
			tried, end := w.outage()
			f := w.openFile("f.txt")
			f.replace(data(2*chunk, 1))
			done := f.committing()
			<-tried
			w.rename("f.txt", c.to)
			require.NoError(t, done.await(t), "as the close of a file of that name")
			f.close()
			end()
			require.Equal(t, c.want, w.noResult(c.to).State)
			require.Empty(t, w.mem.Uploads("pending"))

			w.rename(c.to, "g.txt")
			w.settle()
			require.Equal(t, "g.txt", w.uploaded("g.txt").Filename)
			require.Len(t, w.mem.Files(), 1)
			require.Zero(t, w.log.count("failed"))
		})
	}
}

// TestAWrittenFileIsNotSentUnderAHeldName: while a close waits, the file is written and
// renamed. What the close spoke of has no Upload yet, and gets none.
func TestAWrittenFileIsNotSentUnderAHeldName(t *testing.T) {
	w := newHarness(t, patient)
	tried, end := w.outage()
	f := w.openFile("f.txt")
	f.replace(data(2*chunk, 1))
	done := f.committing()
	<-tried
	f.writeAt(2*chunk, []byte("more"))
	w.rename("f.txt", "f.part")
	require.NoError(t, done.await(t))
	require.Equal(t, state.Writing, w.status("f.part").State)
	require.NoError(t, f.commit())
	f.close()
	end()
	require.Equal(t, state.Held, w.noResult("f.part").State)
	w.rename("f.part", "f.txt")
	w.settle()
	w.uploaded("f.txt")
	require.Len(t, w.mem.Files(), 1)
}

// TestAHeldFileThatIsDueGoesOn: it waits for the API when its directory is renamed, and
// that is no reason to hold it once more.
func TestAHeldFileThatIsDueGoesOn(t *testing.T) {
	w := newHarness(t, patient)
	require.NoError(t, os.Mkdir(w.path("d"), 0o700))
	require.NoError(t, w.put("d/f.tmp", data(chunk, 1)))
	tried, end := w.outage()
	require.NoError(t, w.up.Retry("d/f.tmp"))
	<-tried
	w.rename("d", "e")
	require.True(t, w.status("e/f.tmp").State.Committing())
	end()
	w.settle()
	require.Equal(t, "f.tmp", w.uploaded("e/f.tmp").Filename)
}
