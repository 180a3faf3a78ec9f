//go:build linux

package uploader_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/api/retry"
	"uploadfs/uploader/state"
)

func TestTheAnswerToCompleteIsLost(t *testing.T) {
	t.Run("it was not carried out", func(t *testing.T) {
		w := newHarness(t)
		w.mem.Fail(apitest.OpComplete, apitest.Before, apitest.Broken())
		require.NoError(t, w.put("f", data(3*chunk, 1)))
		w.uploaded("f")
		require.Equal(t, 2, w.mem.Counts().Calls[apitest.OpComplete])
		require.Len(t, w.mem.Files(), 1)
	})
	t.Run("it was not carried out, and a stranger's File is like ours", func(t *testing.T) {
		w := newHarness(t)
		stranger := w.stranger("f", data(3*chunk, 9))
		w.mem.Fail(apitest.OpComplete, apitest.Before, apitest.Broken())
		require.NoError(t, w.put("f", data(3*chunk, 1)))
		w.uploaded("f")
		require.NotEqual(t, stranger.ID, w.status("f").FileID)
		require.Len(t, w.mem.Files(), 2)
	})
	t.Run("it was carried out", func(t *testing.T) {
		w := newHarness(t)
		w.mem.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
		w.mem.Fail(apitest.OpFind, apitest.Before, apitest.ServerError())
		require.NoError(t, w.put("f", data(3*chunk, 1)))
		w.uploaded("f")
		require.Equal(t, 2, w.mem.Counts().Calls[apitest.OpComplete], "the second says that it is completed")
		require.Len(t, w.mem.Files(), 1)
	})
	t.Run("several could be the result", func(t *testing.T) {
		w := newHarness(t)
		strangers := w.stranger("f", data(3*chunk, 9))
		w.mem.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
		err := w.put("f", data(3*chunk, 1))
		require.Equal(t, api.Refused, api.KindOf(err))
		st := w.noResult("f")
		require.Equal(t, state.Failed, st.State)
		require.Contains(t, st.Error, strangers.ID)
		require.Contains(t, st.Error, w.mem.Files()[1].ID)
		// It stays unknown, and to try again makes no File more of it.
		require.NoError(t, w.up.Retry("f"))
		w.settle()
		require.Equal(t, state.Failed, w.status("f").State)
		w.remount()
		w.settle()
		require.Equal(t, state.Failed, w.status("f").State)
		require.Equal(t, 5, w.mem.Counts().Calls[apitest.OpComplete], "the stranger's, ours twice, the retry's, the next mount's")
		require.Len(t, w.mem.Files(), 2)
		require.NoError(t, w.put("f", data(3*chunk, 2)))
		w.uploaded("f")
	})
	t.Run("its File was deleted since", func(t *testing.T) {
		w := newHarness(t)
		w.mem.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
		w.mem.Fail(apitest.OpFind, apitest.Before, apitest.Denied())
		require.Error(t, w.put("f", data(3*chunk, 1)))
		deleted := w.mem.Files()[0].ID
		w.stop()
		w.opts.Backend = retry.New(without{w.mem, deleted}, retry.Options{First: 1})
		w.start()
		w.settle()
		require.Equal(t, state.Failed, w.status("f").State, "perhaps it is only not listed yet")
		// But the user may insist.
		require.NoError(t, w.up.Retry("f"))
		w.settle()
		w.uploaded("f")
		require.Len(t, w.mem.Files(), 2)
	})
	t.Run("it could be that of another Upload", func(t *testing.T) {
		w := newHarness(t)
		require.NoError(t, os.Mkdir(w.path("d"), 0o700))
		w.mem.Fail(apitest.OpComplete, apitest.Before, apitest.Broken(), apitest.Denied())
		require.Error(t, w.put("d/f", data(3*chunk, 1)))
		w.mem.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
		require.Error(t, w.put("f", data(3*chunk, 2)))
		require.Contains(t, w.noResult("f").Error, w.mem.Files()[0].ID)
		for _, name := range []string{"f", "d/f"} {
			require.NoError(t, w.up.Retry(name))
			w.settle()
			w.uploaded(name)
		}
	})
	t.Run("the list is refused", func(t *testing.T) {
		w := newHarness(t)
		w.mem.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
		w.mem.Fail(apitest.OpFind, apitest.Before, apitest.Denied())
		require.Equal(t, api.Denied, api.KindOf(w.put("f", data(3*chunk, 1))))
		require.True(t, w.up.Completing(w.key("f")))
		require.NoError(t, w.up.Retry("f"))
		w.settle()
		w.uploaded("f")
		require.Equal(t, 3, w.mem.Counts().Calls[apitest.OpComplete])
	})
}

// without is an API at which a File has been deleted.
type without struct {
	api.Backend
	id string
}

func (w without) FindFiles(ctx context.Context, spec api.Spec, since time.Time) ([]api.File, error) {
	files, err := w.Backend.FindFiles(ctx, spec, since)
	return slices.DeleteFunc(files, func(f api.File) bool { return f.ID == w.id }), err
}

// stranger is a File that another client has uploaded.
func (w *harness) stranger(name string, content []byte) api.File {
	w.t.Helper()
	ctx := context.Background()
	up, err := w.mem.Create(ctx, api.Spec{Filename: name, Purpose: uploader.DefaultPurpose, MimeType: "text/plain", Bytes: int64(len(content))})
	require.NoError(w.t, err)
	id, err := w.mem.AddPart(ctx, up.ID, section(content))
	require.NoError(w.t, err)
	file, err := w.mem.Complete(ctx, up.ID, []string{id}, "")
	require.NoError(w.t, err)
	return file
}

func section(content []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content)))
}

func TestALostAnswerIsNeverAnotherContentsFile(t *testing.T) {
	// Each of these leaves a File of the same name, size and purpose behind,
	// made a moment ago.
	for name, before := range map[string]func(*harness){
		"of another file": func(w *harness) {
			require.NoError(t, os.Mkdir(w.path("d"), 0o700))
			require.NoError(t, w.put("d/f", data(3*chunk, 1)))
		},
		"of its own earlier content": func(w *harness) {
			require.NoError(t, w.put("f", data(3*chunk, 1)))
		},
		"of a removed file": func(w *harness) {
			require.NoError(t, w.put("f", data(3*chunk, 1)))
			w.remove("f")
		},
		"of the earlier content of a removed file": func(w *harness) {
			require.NoError(t, w.put("f", data(3*chunk, 1)))
			require.NoError(t, w.put("f", data(2*chunk, 1)))
			w.remove("f")
		},
		"of a file that was removed before the last mount": func(w *harness) {
			require.NoError(t, w.put("f", data(3*chunk, 1)))
			w.remove("f")
			w.remount()
		},
		"of a file that was removed behind the mount": func(w *harness) {
			require.NoError(t, w.put("f", data(3*chunk, 1)))
			w.stop()
			require.NoError(t, os.Remove(w.path("f")))
			w.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			before(w)
			w.mem.Fail(apitest.OpComplete, apitest.Before, apitest.Broken())
			require.NoError(t, w.put("f", data(3*chunk, 2)))
			w.uploaded("f")
		})
	}
}

// deaf completes whatever happens to the context, as an API does whose answer
// arrives at the same moment.
type deaf struct{ api.Backend }

func (d deaf) Complete(ctx context.Context, id string, parts []string, md5 string) (api.File, error) {
	return d.Backend.Complete(context.WithoutCancel(ctx), id, parts, md5)
}

func TestCompletedAlthoughItWasGivenUp(t *testing.T) {
	for name, giveUp := range map[string]func(*harness, *file){
		"removed": func(w *harness, f *file) { w.remove("f"); f.close() },
		"emptied": func(w *harness, f *file) { f.truncate(0); f.CommitLater() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.stop()
			w.opts.Backend = retry.New(deaf{w.mem}, retry.Options{First: 1})
			w.start()
			gate := w.mem.Hold(apitest.OpComplete, apitest.After)
			f := w.openFile("f")
			f.replace(data(3*chunk, 1))
			f.CommitLater()
			gate.Await(t, 1)
			giveUp(w, f)
			gate.Open()
			f.close()
			w.idle(0)
			require.Len(t, w.mem.Files(), 1)

			w.mem.Fail(apitest.OpComplete, apitest.Before, apitest.Broken())
			require.NoError(t, w.put("f", data(3*chunk, 2)))
			w.uploaded("f")
		})
	}
}

func TestFilesThatOnlyTheirContentTellsApart(t *testing.T) {
	w := newHarness(t)
	dirs := []string{"a", "b", "c", "d"}
	var answers []*answer
	w.mem.Fail(apitest.OpComplete, apitest.After, apitest.Broken(), nil, apitest.Broken())
	w.mem.Fail(apitest.OpComplete, apitest.Before, nil, apitest.Broken(), nil)
	for i, d := range dirs {
		require.NoError(t, os.Mkdir(w.path(d), 0o700))
		f := w.openFile(d + "/same")
		f.replace(data(2*chunk, byte(i)))
		answers = append(answers, f.committing())
	}
	for i, d := range dirs {
		require.NoError(t, answers[i].await(t))
		w.uploaded(d + "/same")
	}
	require.Len(t, w.mem.Files(), len(dirs))
	require.Equal(t, 1, w.mem.Counts().Peak[apitest.OpComplete])
}

func TestTheDaemonEndsBeforeTheAnswerToComplete(t *testing.T) {
	for name, end := range map[string]func(*harness, ...func()){
		"killed": (*harness).crash,
		"unmounted": func(w *harness, meanwhile ...func()) {
			w.stop()
			for f := range w.open {
				f.close()
			}
			for _, f := range meanwhile {
				f()
			}
			w.start()
		},
	} {
		held := func(t *testing.T, stage apitest.Stage) *harness {
			w := newHarness(t)
			gate := w.mem.Hold(apitest.OpComplete, stage)
			f := w.openFile("f")
			f.replace(data(3*chunk, 1))
			f.CommitLater()
			gate.Await(t, 1)
			require.True(t, w.up.Completing(f.key))
			w.t.Cleanup(gate.Open)
			return w
		}
		restart := func(w *harness, meanwhile ...func()) {
			end(w, append(meanwhile, func() { w.mem.Hold(apitest.OpComplete, apitest.After).Open() },
				func() { w.mem.Hold(apitest.OpComplete, apitest.Before).Open() })...)
			w.settle()
		}
		t.Run(name+", carried out", func(t *testing.T) {
			w := held(t, apitest.After)
			restart(w)
			w.uploaded("f")
			require.Equal(t, 2, w.mem.Counts().Calls[apitest.OpComplete])
			require.Equal(t, 3, w.mem.Counts().Parts)
			require.Len(t, w.mem.Files(), 1)
		})
		t.Run(name+", carried out, and the Upload has expired", func(t *testing.T) {
			w := held(t, apitest.After)
			restart(w, func() { require.NoError(t, uploader.AgeUploads(w.opts.StateDir)) })
			w.uploaded("f")
			require.Equal(t, 1, w.mem.Counts().Created)
			require.Len(t, w.mem.Files(), 1)
		})
		t.Run(name+", not carried out", func(t *testing.T) {
			w := held(t, apitest.Before)
			restart(w)
			w.uploaded("f")
			require.Equal(t, 3, w.mem.Counts().Parts, "they are there already")
			require.Equal(t, 1, w.mem.Counts().Created)
		})
		t.Run(name+", not carried out, and the Upload has expired", func(t *testing.T) {
			w := held(t, apitest.Before)
			restart(w, func() {
				require.NoError(t, uploader.AgeUploads(w.opts.StateDir))
				w.mem.Expire("upload_0001")
			})
			w.uploaded("f")
			require.Equal(t, 2, w.mem.Counts().Created)
			require.Len(t, w.mem.Files(), 1)
		})
		t.Run(name+", carried out, and changed behind the mount", func(t *testing.T) {
			w := held(t, apitest.After)
			restart(w, func() { require.NoError(t, os.WriteFile(w.path("f"), data(3*chunk, 2), 0o600)) })
			require.Equal(t, state.Interrupted, w.noResult("f").State)
			require.NoError(t, w.up.Retry("f"))
			w.settle()
			w.uploaded("f")
			require.Len(t, w.mem.Files(), 2)
		})
	}
}

func TestChangedWhileTheAnswerToCompleteIsUnknown(t *testing.T) {
	w := newHarness(t)
	gate := w.mem.Hold(apitest.OpComplete, apitest.After)
	f := w.openFile("f")
	f.replace(data(3*chunk, 1))
	f.CommitLater()
	gate.Await(t, 1)
	f.writeAt(0, []byte("another content of the same size"))
	w.crash(func() { w.mem.Hold(apitest.OpComplete, apitest.After).Open() })
	require.Equal(t, state.Interrupted, w.status("f").State)
	require.NoError(t, w.up.Retry("f"))
	w.settle()
	w.uploaded("f")
	require.Len(t, w.mem.Files(), 2)
}

// TestARivalIsSeenWhateverTheAPIsClock gives up an Upload whose outcome is unknown.
// Then a File of its name, size and purpose may be its result as well as ours.
func TestARivalIsSeenWhateverTheAPIsClock(t *testing.T) {
	for _, ahead := range []time.Duration{0, 3 * time.Hour} {
		w := newHarness(t)
		w.mem.Now = func() time.Time { return time.Now().Add(ahead) }
		gate := w.mem.Hold(apitest.OpComplete, apitest.Before)
		f := w.openFile("f")
		f.replace(data(3*chunk, 1))
		f.CommitLater()
		gate.Await(t, 1)
		f.writeAt(0, []byte("another content of the same size"))
		w.crash(func() { w.mem.Hold(apitest.OpComplete, apitest.Before).Open() })
		w.mem.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
		err := w.put("f", data(3*chunk, 2))
		require.ErrorContains(t, err, "may be its result or that of another Upload", "the API's clock is %v ahead", ahead)
		require.Equal(t, state.Failed, w.status("f").State)
	}
}

func TestAnOutageLongerThanTheUploadsLife(t *testing.T) {
	w := newHarness(t)
	f := w.openFile("f")
	f.replace(data(3*chunk, 1))
	answered := false
	w.mem.Hook(func(_ context.Context, c apitest.Call) error {
		switch {
		case c.Op == apitest.OpComplete && c.Stage == apitest.After:
			w.mem.Expire(c.UploadID)
			return apitest.Broken()
		case c.Op == apitest.OpFind && c.Stage == apitest.Before && !answered:
			answered = true
			return apitest.ServerError()
		}
		return nil
	})
	require.NoError(t, f.commit())
	w.uploaded("f")
	require.Len(t, w.mem.Files(), 1)
}

// TestARefusedRepetitionNamesItsCandidates loses the answer to a Complete that was not
// carried out, has the API refuse the repeated one, and has a File that could be its
// result. It must not be taken.
func TestARefusedRepetitionNamesItsCandidates(t *testing.T) {
	w := newHarness(t)
	stranger := w.stranger("f", data(3*chunk, 9))
	w.mem.Fail(apitest.OpComplete, apitest.Before, apitest.Broken(),
		&api.Error{Kind: api.Refused, Status: 400, Message: "Unheard of."})
	err := w.put("f", data(3*chunk, 1))
	require.Equal(t, api.Refused, api.KindOf(err))
	st := w.noResult("f")
	require.Equal(t, state.Failed, st.State)
	require.Contains(t, st.Error, stranger.ID)
	require.Contains(t, st.Error, "Unheard of.")
	require.Len(t, w.mem.Files(), 1)
}
