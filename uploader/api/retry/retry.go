// Package retry is the one place that repeats calls to the API.
//
// [New] wraps a Backend. Transient errors are retried, with exponential backoff and
// full jitter, for as long as the context lives. The API's Retry-After is honoured.
// Every other error is returned at once.
//
// A call may be carried out although its answer is lost. For Create and AddPart that
// does no harm: an unused Upload expires, and Complete does not list an unused part.
// Complete is repeated too, since an Upload is completed only once. When the API then
// refuses it, the File may exist. The decorator asks the caller whether it does, see
// [api.WithOutcomeCheck].
package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"uploadfs/uploader/api"

	"github.com/cenkalti/backoff/v5"
)

// What a zero field of [Options] means.
const (
	DefaultFirst         = 250 * time.Millisecond
	DefaultMax           = 30 * time.Second
	DefaultMaxRetryAfter = 5 * time.Minute
)

// Options say how long to wait between attempts.
type Options struct {
	// First is the mean of the first wait. Each further mean is twice the
	// previous one. A wait is between zero and twice its mean.
	First time.Duration

	// Max is the longest wait.
	Max time.Duration

	// MaxRetryAfter bounds the wait that the API asks for. The real wait is
	// that one plus the wait of the backoff. So not all clients that were told
	// to wait come back at the same moment.
	MaxRetryAfter time.Duration
}

// backend is the decorator. It may be used as concurrently as the inner Backend.
type backend struct {
	inner api.Backend
	opts  Options
}

// New returns inner with its transient errors retried. Zero options take the
// defaults. Each failed attempt that will be repeated is reported with
// [api.NoteRetry]. [api.WithAttempts] says when an attempt may be made.
//
// When the context ends while a call waits for its next attempt, the error has
// the context's cause in its chain and the last attempt's error, and its text
// says both.
func New(inner api.Backend, opts Options) api.Backend {
	if opts.First <= 0 {
		opts.First = DefaultFirst
	}
	if opts.Max <= 0 {
		opts.Max = DefaultMax
	}
	if opts.MaxRetryAfter <= 0 {
		opts.MaxRetryAfter = DefaultMaxRetryAfter
	}
	return &backend{inner, opts}
}

// Unwrap returns the decorated Backend, see [api.FileReaderOf].
func (b *backend) Unwrap() api.Backend { return b.inner }

func (b *backend) Create(ctx context.Context, spec api.Spec) (api.Upload, error) {
	again := false
	return repeat(ctx, b.opts, func() (api.Upload, error) {
		return attempt(ctx, func() (api.Upload, error) {
			if again {
				spec = api.CurrentSpec(ctx, spec)
			}
			again = true
			return b.inner.Create(ctx, spec)
		})
	})
}

func (b *backend) AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (string, error) {
	timeouts := 0
	return repeat(ctx, b.opts, func() (string, error) {
		id, err := attempt(ctx, func() (string, error) {
			return b.inner.AddPart(api.WithAnswerTimeouts(ctx, timeouts), uploadID, body)
		})
		if errors.Is(err, api.ErrAnswerTimeout) {
			timeouts++
		}
		return id, err
	})
}

func (b *backend) Complete(ctx context.Context, uploadID string, partIDs []string, md5 string) (api.File, error) {
	repeated := api.HasEarlierComplete(ctx) // an earlier Complete may have been carried out
	return repeat(ctx, b.opts, func() (api.File, error) {
		file, err := attempt(ctx, func() (api.File, error) { return b.inner.Complete(ctx, uploadID, partIDs, md5) })
		if err == nil {
			return file, nil
		}
		switch outcome := outcomeOf(err); {
		case outcome == completed, outcome == refused && repeated:
			return checkOutcome(ctx, err)
		case outcome == unknown:
			repeated = true
		}
		if repeated {
			err = mayExist(err)
			if ctx.Err() != nil {
				err = backoff.Permanent(err) // the error of an attempt before could be another
			}
		}
		return file, err
	})
}

// checkOutcome asks the caller whether the File exists, after refusal. An error is
// final.
func checkOutcome(ctx context.Context, refusal error) (api.File, error) {
	check := api.OutcomeCheckOf(ctx)
	if check == nil {
		return api.File{}, backoff.Permanent(mayExist(refusal))
	}
	question := api.OutcomeQuestion{Refusal: refusal}
	if e := (*api.Error)(nil); errors.As(refusal, &e) {
		question.Answered = e.ServerTime
	}
	switch file, found, err := check(ctx, question); {
	case err != nil:
		return api.File{}, backoff.Permanent(err)
	case !found:
		return api.File{}, backoff.Permanent(refusal)
	default:
		return file, nil
	}
}

// mayExist adds [api.ErrOutcomeUnknown] to the chain of err.
func mayExist(err error) error {
	if errors.Is(err, api.ErrOutcomeUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", err, api.ErrOutcomeUnknown)
}

func (b *backend) Cancel(ctx context.Context, uploadID string) error {
	_, err := repeat(ctx, b.opts, func() (struct{}, error) {
		return attempt(ctx, func() (struct{}, error) { return struct{}{}, b.inner.Cancel(ctx, uploadID) })
	})
	return err
}

func (b *backend) FindFiles(ctx context.Context, spec api.Spec, since time.Time) ([]api.File, error) {
	return repeat(ctx, b.opts, func() ([]api.File, error) {
		return attempt(ctx, func() ([]api.File, error) { return b.inner.FindFiles(ctx, spec, since) })
	})
}

// FileExists implements [api.FileChecker] where the inner Backend does.
func (b *backend) FileExists(ctx context.Context, fileID string) (bool, error) {
	inner := api.FileCheckerOf(b.inner)
	if inner == nil {
		return false, &api.Error{Kind: api.Refused, Message: "the API has no call for one File"}
	}
	return repeat(ctx, b.opts, func() (bool, error) {
		return attempt(ctx, func() (bool, error) { return inner.FileExists(ctx, fileID) })
	})
}

// attempt makes one attempt when the owner of the call lets it, see [api.WithAttempts].
func attempt[T any](ctx context.Context, call func() (T, error)) (T, error) {
	attempts := api.AttemptsOf(ctx)
	if err := attempts.Begin(ctx); err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", err, api.ErrNotSent)
	}
	result, err := call()
	attempts.End(err)
	return result, err
}

// repeat makes attempts until one succeeds or fails for good, or ctx ends.
func repeat[T any](ctx context.Context, opts Options, attempt func() (T, error)) (T, error) {
	waits := opts.waits()
	var last error // of the attempt before
	for {
		result, err := attempt()
		if err == nil {
			if last != nil {
				api.NoteRetry(ctx, nil, time.Time{})
			}
			return result, nil
		}
		if final := (*backoff.PermanentError)(nil); errors.As(err, &final) {
			return result, final.Unwrap()
		}
		if ctx.Err() != nil {
			if last == nil {
				last = err
			}
			return result, ended(ctx, last)
		}
		if api.KindOf(err) != api.Transient {
			return result, err
		}
		last = err

		wait := opts.wait(waits, err)
		api.AttemptsOf(ctx).Pause()
		api.NoteRetry(ctx, err, time.Now().Add(wait))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return result, ended(ctx, last)
		}
	}
}

// waits returns the sequence of waits of one call.
func (o Options) waits() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     min(o.First, o.Max/2),
		RandomizationFactor: 1, // full jitter: 0 to twice the interval
		Multiplier:          2,
		MaxInterval:         o.Max / 2,
	}
}

// wait is the time to the next attempt after err.
func (o Options) wait(waits backoff.BackOff, err error) time.Duration {
	wait := waits.NextBackOff()
	if e := (*api.Error)(nil); errors.As(err, &e) && e.RetryAfter > 0 {
		wait += min(e.RetryAfter, o.MaxRetryAfter)
	}
	return wait
}

// ended is the error of a call that ctx ended after last. The cause comes first
// in the chain, so that its Kind counts if it has one.
func ended(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	if errors.Is(last, cause) {
		return last
	}
	return fmt.Errorf("%w; the last attempt: %w", cause, last)
}

// outcome is what a failed Complete says about the File.
type outcome int

const (
	// notDone: this attempt was not carried out. It says nothing about earlier ones.
	notDone outcome = iota
	// unknown: there was no answer, or none that says anything (a server error, a
	// success that makes no sense). The attempt may have been carried out.
	unknown
	// completed: the API says that the Upload was completed before.
	completed
	// refused: the API refuses for another reason. An earlier attempt may be that
	// reason, in words that are not known.
	refused
)

// outcomeOf classifies the error of one attempt.
func outcomeOf(err error) outcome {
	switch {
	case errors.Is(err, api.ErrAlreadyCompleted):
		return completed
	case errors.Is(err, api.ErrOutcomeUnknown):
		return unknown
	case errors.Is(err, api.ErrNotSent):
		return notDone
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return notDone
	}
	e := (*api.Error)(nil)
	if !errors.As(err, &e) {
		return unknown
	}
	switch e.Kind {
	case api.Denied, api.Quota:
		return notDone
	case api.Gone, api.TooLarge, api.Refused:
		return refused
	}
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusConflict:
		return notDone
	}
	return unknown
}
