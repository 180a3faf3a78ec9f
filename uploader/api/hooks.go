package api

import (
	"context"
	"errors"
	"time"
)

type retryNote struct{}

// WithRetryNote returns a context whose Backend calls report each failed attempt
// that will be repeated: the error and the time of the next attempt. So a session
// can show `retrying` while the call is under way. note is called on the calling
// goroutine and must not block.
func WithRetryNote(ctx context.Context, note func(err error, next time.Time)) context.Context {
	return context.WithValue(ctx, retryNote{}, note)
}

// NoteRetry calls the function that [WithRetryNote] put into ctx, if there is one.
// The retry decorator calls it. next is zero once an attempt has succeeded after
// failures.
func NoteRetry(ctx context.Context, err error, next time.Time) {
	if note, ok := ctx.Value(retryNote{}).(func(error, time.Time)); ok {
		note(err, next)
	}
}

type specKey struct{}

// WithSpec returns a context whose Create declares at each further attempt what spec
// returns then: a file that waits through an outage may have got another name. spec is
// called on the calling goroutine.
func WithSpec(ctx context.Context, spec func() Spec) context.Context {
	return context.WithValue(ctx, specKey{}, spec)
}

// CurrentSpec is what a further attempt of a Create with this context and spec is to declare.
// The retry decorator calls it.
func CurrentSpec(ctx context.Context, spec Spec) Spec {
	if current, ok := ctx.Value(specKey{}).(func() Spec); ok {
		return current()
	}
	return spec
}

// Attempts decides when a call may make its next attempt. So its owner can bound the
// attempts under way, and a call that waits for the next one holds nothing. One
// goroutine at a time uses it.
type Attempts interface {
	// Begin returns when the attempt may be made. An error ends the call: nothing
	// was sent.
	Begin(ctx context.Context) error
	// End is told how the attempt ended.
	End(err error)
	// Pause is told that the call waits for its next attempt. Begin ends that.
	Pause()
}

type attemptsKey struct{}

// WithAttempts returns a context whose Backend calls ask a before each attempt. The
// retry decorator does.
func WithAttempts(ctx context.Context, a Attempts) context.Context {
	return context.WithValue(ctx, attemptsKey{}, a)
}

// AttemptsOf returns what [WithAttempts] put into ctx, or one that lets every attempt
// go at once.
func AttemptsOf(ctx context.Context) Attempts {
	if a, ok := ctx.Value(attemptsKey{}).(Attempts); ok {
		return a
	}
	return unbounded{}
}

type unbounded struct{}

func (unbounded) Begin(context.Context) error { return nil }
func (unbounded) End(error)                   {}
func (unbounded) Pause()                      {}

type progressKey struct{}

// WithProgress returns a context whose AddPart reports how many bytes of its body the
// peer has acknowledged so far, in this attempt: an estimate that is less than one
// percent too high. Each attempt begins with 0, and a successful one ends with the
// size of the body. In between reports come at most a few times a second. progress
// is never called concurrently for one call, nor after the call has returned, and
// must not block.
func WithProgress(ctx context.Context, progress func(acked int64)) context.Context {
	return context.WithValue(ctx, progressKey{}, progress)
}

// NoteProgress calls the function that [WithProgress] put into ctx, if there is one.
// A Backend calls it.
func NoteProgress(ctx context.Context, acked int64) {
	if progress, ok := ctx.Value(progressKey{}).(func(int64)); ok {
		progress(acked)
	}
}

type answerTimeoutsKey struct{}

// WithAnswerTimeouts returns a context that says how many earlier attempts of the call
// ended with [ErrAnswerTimeout]. The retry decorator sets it; a Backend waits longer
// for the answer then.
func WithAnswerTimeouts(ctx context.Context, n int) context.Context {
	return context.WithValue(ctx, answerTimeoutsKey{}, n)
}

// AnswerTimeouts returns the number that [WithAnswerTimeouts] put into ctx, or 0.
func AnswerTimeouts(ctx context.Context) int {
	n, _ := ctx.Value(answerTimeoutsKey{}).(int)
	return n
}

// OutcomeQuestion asks whether an earlier Complete of an Upload has made its File,
// after the API has refused a repeated one.
type OutcomeQuestion struct {
	// Answered is when the API refused, by its own clock and in whole seconds: the
	// File is not younger. It is zero when the API did not say.
	Answered time.Time
	// Refusal is the refusal. It is never nil.
	Refusal error
}

// AlreadyCompleted reports whether the API has said that the Upload is completed.
// Then the File exists, even if it is not listed yet.
//
// Otherwise the API has refused for another reason: the Upload has expired or is
// unknown, or the words are not known. Then a File that could be the result cannot
// be told from another one. The check returns an error that names it. Without such
// a File it returns not found, and the refusal stands.
func (q OutcomeQuestion) AlreadyCompleted() bool { return errors.Is(q.Refusal, ErrAlreadyCompleted) }

// OutcomeCheck answers an [OutcomeQuestion]. It returns the File if it exists and is
// the Upload's. An error ends the Complete with it. It runs on the goroutine that
// called Complete and may take minutes; the context is that of the call.
type OutcomeCheck func(context.Context, OutcomeQuestion) (file File, found bool, err error)

type outcomeCheckKey struct{}

// WithOutcomeCheck returns a context whose Complete calls check when the API refuses
// a Complete that may have been carried out before. Only the caller knows which
// Files have another origin.
func WithOutcomeCheck(ctx context.Context, check OutcomeCheck) context.Context {
	return context.WithValue(ctx, outcomeCheckKey{}, check)
}

// OutcomeCheckOf returns the function that [WithOutcomeCheck] put into ctx, or nil.
func OutcomeCheckOf(ctx context.Context) OutcomeCheck {
	check, _ := ctx.Value(outcomeCheckKey{}).(OutcomeCheck)
	return check
}

type earlierCompleteKey struct{}

// WithEarlierComplete returns a context whose Complete counts as a repeated one from
// its first attempt on. It is for a Complete whose answer an earlier process has not
// recorded.
func WithEarlierComplete(ctx context.Context) context.Context {
	return context.WithValue(ctx, earlierCompleteKey{}, true)
}

// HasEarlierComplete reports whether ctx comes from [WithEarlierComplete].
func HasEarlierComplete(ctx context.Context) bool {
	return ctx.Value(earlierCompleteKey{}) != nil
}
