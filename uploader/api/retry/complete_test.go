package retry_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/api/retry"
)

// completion is an Upload of one part that is ready to be completed.
type completion struct {
	*apitest.Memory
	upload, part string
	asked        []api.OutcomeQuestion
}

func newCompletion(t *testing.T) *completion {
	c := &completion{Memory: apitest.NewMemory()}
	up, err := c.Create(t.Context(), spec)
	require.NoError(t, err)
	c.upload = up.ID
	c.part, err = c.AddPart(t.Context(), up.ID, body())
	require.NoError(t, err)
	return c
}

// run completes the Upload behind the decorator.
func (c *completion) run(ctx context.Context) (api.File, error) {
	return retry.New(c.Memory, retry.Options{}).Complete(ctx, c.upload, []string{c.part}, "")
}

// answering returns a context whose outcome check records the question.
func (c *completion) answering(ctx context.Context, file api.File, found bool, err error) context.Context {
	return api.WithOutcomeCheck(ctx, func(_ context.Context, q api.OutcomeQuestion) (api.File, bool, error) {
		c.asked = append(c.asked, q)
		return file, found, err
	})
}

// lostAnswers are errors after which a Complete may have been carried out.
var lostAnswers = map[string]error{
	"broken connection": apitest.Broken(),
	"server error":      apitest.ServerError(),
	"garbage":           &api.Error{Status: http.StatusOK, Message: "unexpected answer"},
	"unknown error":     errors.New("unheard of"),
}

func TestLostCompleteIsRepeatedFirst(t *testing.T) {
	for name, lost := range lostAnswers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCompletion(t)
				c.Fail(apitest.OpComplete, apitest.Before, lost, lost)
				file, err := c.run(c.answering(t.Context(), api.File{ID: "file-another"}, true, nil))
				require.NoError(t, err)
				require.Equal(t, c.Files(), []api.File{file})
				require.Empty(t, c.asked, "the API has not said that there is a File")
				require.Equal(t, 3, c.Counts().Calls[apitest.OpComplete])
			})
		})
	}
}

func TestCompletedBeforeAsksForTheFile(t *testing.T) {
	for name, lost := range lostAnswers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCompletion(t)
				c.Fail(apitest.OpComplete, apitest.After, lost)
				ours := api.File{ID: "file-ours"}
				file, err := c.run(c.answering(t.Context(), ours, true, nil))
				require.NoError(t, err)
				require.Equal(t, ours, file)
				require.Len(t, c.asked, 1)
				require.True(t, c.asked[0].AlreadyCompleted())
				require.Equal(t, time.Now().Truncate(time.Second), c.asked[0].Answered)
				require.Equal(t, 2, c.Counts().Calls[apitest.OpComplete])
			})
		})
	}
}

func TestNoDateNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompletion(t)
		c.NoDate = true
		c.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
		_, err := c.run(c.answering(t.Context(), api.File{}, true, nil))
		require.NoError(t, err)
		require.Zero(t, c.asked[0].Answered)
	})
}

// TestEarlierComplete has the first attempt count as a repeated one.
func TestEarlierComplete(t *testing.T) {
	gone := &api.Error{Kind: api.Gone, Status: http.StatusNotFound, Message: "No such Upload."}
	c := newCompletion(t)
	c.Fail(apitest.OpComplete, apitest.Before, gone, gone)
	_, err := c.run(c.answering(t.Context(), api.File{}, false, nil))
	require.Equal(t, api.Gone, api.KindOf(err))
	require.Empty(t, c.asked)

	_, err = c.run(c.answering(api.WithEarlierComplete(t.Context()), api.File{}, false, nil))
	require.Equal(t, api.Gone, api.KindOf(err))
	require.Len(t, c.asked, 1)

	// It is completed all the same, if the API has nothing against it.
	file, err := c.run(c.answering(api.WithEarlierComplete(t.Context()), api.File{}, false, nil))
	require.NoError(t, err)
	require.Equal(t, c.Files(), []api.File{file})
	require.Len(t, c.asked, 1)
}

// TestRefusedRepetition loses the answer to a Complete, and has the API refuse the
// repeated one.
func TestRefusedRepetition(t *testing.T) {
	refusal := func(kind api.Kind, status int) *api.Error {
		return &api.Error{Kind: kind, Status: status, Message: "no"}
	}
	candidates := &api.Error{Op: "complete", Kind: api.Refused, Message: "file-1 could be its result"}
	for name, test := range map[string]struct {
		answer  *api.Error
		asks    bool
		unknown bool // the outcome stays unknown, without a check that finds something
	}{
		"unknown Upload": {refusal(api.Gone, 404), true, false},
		"expired":        {refusal(api.Gone, 400), true, false},
		"unknown words":  {refusal(api.Refused, 400), true, false},
		"too large":      {refusal(api.TooLarge, 413), true, false},
		"unauthorized":   {refusal(api.Denied, 401), false, true},
		"forbidden":      {refusal(api.Denied, 403), false, true},
		"quota":          {refusal(api.Quota, 429), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				run := func(ctx func(*completion) context.Context) (*completion, error) {
					c := newCompletion(t)
					c.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
					c.Fail(apitest.OpComplete, apitest.Before, nil, test.answer)
					_, err := c.run(ctx(c))
					require.Equal(t, 2, c.Counts().Calls[apitest.OpComplete])
					return c, err
				}
				// No File: the refusal stands.
				c, err := run(func(c *completion) context.Context { return c.answering(t.Context(), api.File{}, false, nil) })
				require.ErrorContains(t, err, "no")
				require.Equal(t, test.answer.Kind, api.KindOf(err))
				require.Equal(t, test.unknown, errors.Is(err, api.ErrOutcomeUnknown))
				require.Equal(t, test.asks, len(c.asked) == 1)
				if test.asks {
					require.False(t, c.asked[0].AlreadyCompleted())
					require.Equal(t, test.answer.Kind, api.KindOf(c.asked[0].Refusal))
				}
				// A File that could be the result: what the check says.
				_, err = run(func(c *completion) context.Context { return c.answering(t.Context(), api.File{}, false, candidates) })
				require.Equal(t, test.asks, errors.Is(err, candidates))
				// Without a check there is no way to know.
				_, err = run(func(*completion) context.Context { return t.Context() })
				require.Equal(t, test.answer.Kind, api.KindOf(err))
				require.ErrorIs(t, err, api.ErrOutcomeUnknown)
			})
		})
	}
}

// TestTransientRefusalOfARepetition checks that 408, 409 and 429 are neither the end nor
// an answer.
func TestTransientRefusalOfARepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompletion(t)
		c.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
		c.Fail(apitest.OpComplete, apitest.Before, nil, apitest.RateLimit(0), apitest.Unreachable(),
			&api.Error{Status: http.StatusRequestTimeout}, &api.Error{Status: http.StatusConflict})
		_, err := c.run(c.answering(t.Context(), api.File{ID: "file-ours"}, true, nil))
		require.NoError(t, err)
		require.Len(t, c.asked, 1)
		require.True(t, c.asked[0].AlreadyCompleted())
		require.Equal(t, 6, c.Counts().Calls[apitest.OpComplete])
	})
}

// TestContextEndsALostComplete ends the context after an answer was lost: during the wait,
// and during an attempt that follows a harmless one.
func TestContextEndsALostComplete(t *testing.T) {
	stopped := &api.Error{Kind: api.Stopped, Message: "the daemon is ending"}
	t.Run("during a wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCompletion(t)
			c.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
			c.Fail(apitest.OpComplete, apitest.Before, nil, apitest.RateLimit(time.Hour))
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Minute, func() { cancel(stopped) })
			_, err := c.run(c.answering(ctx, api.File{}, false, nil))
			require.Equal(t, api.Stopped, api.KindOf(err))
			require.ErrorIs(t, err, api.ErrOutcomeUnknown)
			require.Empty(t, c.asked)
		})
	})
	t.Run("during an attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCompletion(t)
			c.Fail(apitest.OpComplete, apitest.Before, apitest.RateLimit(0))
			ctx, cancel := context.WithCancelCause(t.Context())
			c.Hook(func(_ context.Context, call apitest.Call) error {
				if call.Op == apitest.OpComplete && call.Stage == apitest.After {
					cancel(stopped)
					return stopped
				}
				return nil
			})
			_, err := c.run(ctx)
			require.Equal(t, api.Stopped, api.KindOf(err))
			require.ErrorIs(t, err, api.ErrOutcomeUnknown)
			require.NotContains(t, err.Error(), "\n")
		})
	})
}

// TestNotFoundThoughCompleted has the check find nothing although the API says that the
// Upload is completed. The outcome stays unknown.
func TestNotFoundThoughCompleted(t *testing.T) {
	c := newCompletion(t)
	_, err := c.run(t.Context())
	require.NoError(t, err)
	_, err = c.run(c.answering(t.Context(), api.File{}, false, nil))
	require.ErrorIs(t, err, api.ErrAlreadyCompleted)
	require.ErrorIs(t, err, api.ErrOutcomeUnknown)
	require.Len(t, c.asked, 1)
}
