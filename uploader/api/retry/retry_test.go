package retry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/api/retry"
)

func TestSuite(t *testing.T) {
	apitest.Suite(t, func(t *testing.T) apitest.Fixture {
		f := apitest.NewMemory().Fixture()
		f.Backend = retry.New(f.Backend, retry.Options{})
		return f
	})
}

var spec = api.Spec{Filename: "a.jsonl", Purpose: "batch", MimeType: "text/jsonl", Bytes: 6}

func body() *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader([]byte("abcdef")), 0, 6)
}

// TestOutage has every call fail for a while, in every way that passes.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := apitest.NewMemory()
		b := retry.New(m, retry.Options{})
		outage := []error{apitest.ServerError(), apitest.Unreachable(), apitest.RateLimit(0), errors.New("unheard of")}
		m.Fail(apitest.OpCreate, apitest.Before, outage...)
		m.Fail(apitest.OpCreate, apitest.After, apitest.Broken())
		m.Fail(apitest.OpPart, apitest.MidBody, outage...)
		m.Fail(apitest.OpPart, apitest.After, apitest.Broken())
		m.Fail(apitest.OpComplete, apitest.Before, apitest.RateLimit(0), apitest.Unreachable())
		m.Fail(apitest.OpFind, apitest.Before, outage...)
		m.Fail(apitest.OpCancel, apitest.Before, outage...)
		m.Fail(apitest.OpGet, apitest.Before, outage...)

		up, err := b.Create(t.Context(), spec)
		require.NoError(t, err)
		part, err := b.AddPart(t.Context(), up.ID, body())
		require.NoError(t, err)
		file, err := b.Complete(t.Context(), up.ID, []string{part}, "")
		require.NoError(t, err)
		found, err := b.FindFiles(t.Context(), spec, file.CreatedAt)
		require.NoError(t, err)
		require.Equal(t, []api.File{file}, found)
		exists, err := api.FileCheckerOf(b).FileExists(t.Context(), file.ID)
		require.NoError(t, err)
		require.True(t, exists)
		other, err := b.Create(t.Context(), spec)
		require.NoError(t, err)
		require.NoError(t, b.Cancel(t.Context(), other.ID))

		content, _ := m.Content(file.ID)
		require.Equal(t, "abcdef", string(content))
		require.Equal(t, map[apitest.Op]int{
			apitest.OpCreate: 7, apitest.OpPart: 6, apitest.OpComplete: 3,
			apitest.OpFind: 5, apitest.OpCancel: 5, apitest.OpGet: 5,
		}, m.Counts().Calls)
		require.Len(t, m.Files(), 1)
	})
}

func TestPermanentErrorsReturnAtOnce(t *testing.T) {
	for _, kind := range []api.Kind{
		api.Gone, api.Denied, api.Quota, api.TooLarge, api.Refused, api.Local, api.Stopped,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			m := apitest.NewMemory()
			m.Fail(apitest.OpCreate, apitest.Before, &api.Error{Kind: kind, Message: "no"})
			ctx := api.WithRetryNote(t.Context(), func(error, time.Time) { t.Error("a note without a retry") })
			_, err := retry.New(m, retry.Options{}).Create(ctx, spec)
			require.EqualError(t, err, "create: no")
			require.Equal(t, kind, api.KindOf(err))
			require.Equal(t, 1, m.Counts().Calls[apitest.OpCreate])
		})
	}
}

// note is one call of the function given to WithRetryNote.
type note struct {
	err  error
	at   time.Time // when it was called
	next time.Time
}

func collect(ctx context.Context) (context.Context, *[]note) {
	notes := new([]note)
	return api.WithRetryNote(ctx, func(err error, next time.Time) {
		*notes = append(*notes, note{err, time.Now(), next})
	}), notes
}

func TestNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := apitest.NewMemory()
		m.Fail(apitest.OpCreate, apitest.Before, apitest.ServerError(), apitest.RateLimit(0))
		ctx, notes := collect(t.Context())
		_, err := retry.New(m, retry.Options{}).Create(ctx, spec)
		require.NoError(t, err)
		require.Len(t, *notes, 3)
		require.EqualError(t, (*notes)[0].err, "create: The server is overloaded.")
		require.EqualError(t, (*notes)[1].err, "create: Rate limit reached.")
		require.Equal(t, (*notes)[0].next, (*notes)[1].at, "the next attempt is when it was said to be")
		require.Equal(t, note{nil, (*notes)[1].next, time.Time{}}, (*notes)[2])
	})
}

// TestWaits looks at the waits of many calls: the bounds double up to the
// maximum, and there is jitter over the whole of each.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 200
		bounds := []time.Duration{500, 1000, 2000, 4000, 5000, 5000} // ms
		longest, shortest := make([]time.Duration, len(bounds)), make([]time.Duration, len(bounds))
		for range calls {
			m := apitest.NewMemory()
			for range bounds {
				m.Fail(apitest.OpCreate, apitest.Before, apitest.ServerError())
			}
			ctx, notes := collect(t.Context())
			_, err := retry.New(m, retry.Options{Max: 5 * time.Second}).Create(ctx, spec)
			require.NoError(t, err)
			for i := range bounds {
				wait := (*notes)[i].next.Sub((*notes)[i].at)
				longest[i] = max(longest[i], wait)
				if shortest[i] == 0 || wait < shortest[i] {
					shortest[i] = wait
				}
			}
		}
		for i, bound := range bounds {
			bound *= time.Millisecond
			require.LessOrEqual(t, longest[i], bound+1, "wait %d", i)
			require.Greater(t, longest[i], bound*3/4, "wait %d", i)
			require.Less(t, shortest[i], bound/4, "wait %d", i)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := apitest.NewMemory()
		m.Fail(apitest.OpCreate, apitest.Before, apitest.RateLimit(20*time.Second), apitest.RateLimit(24*time.Hour))
		ctx, notes := collect(t.Context())
		_, err := retry.New(m, retry.Options{}).Create(ctx, spec)
		require.NoError(t, err)
		first := (*notes)[0].next.Sub((*notes)[0].at)
		require.GreaterOrEqual(t, first, 20*time.Second, "never earlier than asked")
		require.LessOrEqual(t, first, 21*time.Second)
		second := (*notes)[1].next.Sub((*notes)[1].at)
		require.GreaterOrEqual(t, second, retry.DefaultMaxRetryAfter, "a day is too long")
		require.LessOrEqual(t, second, retry.DefaultMaxRetryAfter+2*time.Second)
	})
}

func TestContextEndsAWait(t *testing.T) {
	reason := errors.New("the mount is going away")
	for name, test := range map[string]struct {
		cause error // nil: a deadline
		want  string
		is    error
		kind  api.Kind
	}{
		"cancelled": {reason, "the mount is going away", reason, api.Transient},
		"deadline":  {nil, "context deadline exceeded", context.DeadlineExceeded, api.Transient},
		"the cause has a kind": {
			&api.Error{Kind: api.Removed, Message: "the file was removed", Err: io.ErrClosedPipe},
			"the file was removed", io.ErrClosedPipe, api.Removed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := apitest.NewMemory()
				m.Fail(apitest.OpPart, apitest.Before, apitest.RateLimit(time.Hour))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if test.cause != nil {
					var cancel context.CancelCauseFunc
					ctx, cancel = context.WithCancelCause(ctx)
					time.AfterFunc(time.Second, func() { cancel(test.cause) })
				}
				_, err := retry.New(m, retry.Options{}).AddPart(ctx, "upload_1", body())
				require.EqualError(t, err, test.want+"; the last attempt: part upload_1: Rate limit reached.")
				require.ErrorIs(t, err, test.is)
				require.Equal(t, test.kind, api.KindOf(err))
			})
		})
	}
}

// TestContextEndsAnAttempt checks that what the API said before is not lost.
func TestContextEndsAnAttempt(t *testing.T) {
	m := apitest.NewMemory()
	m.Fail(apitest.OpCreate, apitest.Before, apitest.ServerError())
	ctx, cancel := context.WithCancel(t.Context())
	m.Hook(func(context.Context, apitest.Call) error {
		cancel()
		return apitest.Broken()
	})
	_, err := retry.New(m, retry.Options{First: 1}).Create(ctx, spec)
	require.EqualError(t, err, "context canceled; the last attempt: create: The server is overloaded.")
	require.ErrorIs(t, err, context.Canceled)
}

func TestCompleteIsRepeatedIfItWasNotCarriedOut(t *testing.T) {
	dial := &api.Error{Message: "no answer", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	synctest.Test(t, func(t *testing.T) {
		m := apitest.NewMemory()
		b := retry.New(m, retry.Options{})
		up, err := b.Create(t.Context(), spec)
		require.NoError(t, err)
		part, err := b.AddPart(t.Context(), up.ID, body())
		require.NoError(t, err)
		m.Fail(apitest.OpComplete, apitest.Before,
			apitest.RateLimit(time.Second), apitest.Unreachable(), dial,
			&api.Error{Status: http.StatusRequestTimeout}, &api.Error{Status: http.StatusConflict})
		_, err = b.Complete(t.Context(), up.ID, []string{part}, "")
		require.NoError(t, err)
		require.Equal(t, 6, m.Counts().Calls[apitest.OpComplete])
		require.Len(t, m.Files(), 1)
	})
}

func TestRefusedCompleteReturnsAtOnce(t *testing.T) {
	for _, kind := range []api.Kind{api.Gone, api.Denied, api.Quota, api.TooLarge, api.Refused} {
		m := apitest.NewMemory()
		m.Fail(apitest.OpComplete, apitest.Before, &api.Error{Kind: kind, Status: http.StatusBadRequest, Message: "no"})
		_, err := retry.New(m, retry.Options{}).Complete(t.Context(), "upload_1", []string{"part_1"}, "")
		require.Equal(t, kind, api.KindOf(err))
		require.NotErrorIs(t, err, api.ErrOutcomeUnknown)
	}
}
