package api

import (
	"context"
	"time"
)

// retryNote is the context key under which a session asks to hear of retries.
type retryNote struct{}

// WithRetryNote returns a context whose Backend calls report each failed
// attempt that will be repeated: the error and the time of the next attempt. It
// is how a session shows `retrying` while the call itself is still under way.
// The function is called from the calling goroutine and must not block.
func WithRetryNote(ctx context.Context, note func(err error, next time.Time)) context.Context {
	return context.WithValue(ctx, retryNote{}, note)
}

// NoteRetry calls the function that [WithRetryNote] put into ctx, if there is one. The retry decorator calls
// it; next is the zero time once an attempt has succeeded after failures.
func NoteRetry(ctx context.Context, err error, next time.Time) {
	if note, ok := ctx.Value(retryNote{}).(func(error, time.Time)); ok {
		note(err, next)
	}
}

// outcomeCheck is the context key under which a session offers to look whether a
// Complete whose answer was lost has been carried out.
type outcomeCheck struct{}

// WithOutcomeCheck returns a context whose Complete, when its answer is lost,
// can be told whether the File exists. Only the caller knows which Files are
// other content's, so only it can tell. check returns the File if it is there;
// an error ends the Complete with it.
func WithOutcomeCheck(ctx context.Context, check func(context.Context) (file File, found bool, err error)) context.Context {
	return context.WithValue(ctx, outcomeCheck{}, check)
}

// OffersOutcome reports whether ctx comes from [WithOutcomeCheck].
func OffersOutcome(ctx context.Context) bool {
	return ctx.Value(outcomeCheck{}) != nil
}

// CheckOutcome asks what [WithOutcomeCheck] has put into ctx whether the File
// exists; not found where nothing was put there.
func CheckOutcome(ctx context.Context) (file File, found bool, err error) {
	check, ok := ctx.Value(outcomeCheck{}).(func(context.Context) (File, bool, error))
	if !ok {
		return File{}, false, nil
	}
	return check(ctx)
}
