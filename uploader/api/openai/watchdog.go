package openai

import (
	"context"
	"errors"
	"time"
)

// errStalled is the cause with which a [watchdog] ends a call.
var errStalled = errors.New("stalled")

// watchdog ends a call that makes no progress. It sleeps until the first kick:
// what comes before, waiting for a connection and opening it, has limits of its
// own.
type watchdog struct {
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// watch derives the context of one call. The caller must call stop.
func watch(ctx context.Context, limit time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{limit: limit, cancel: cancel}
	w.timer = time.AfterFunc(limit, func() { cancel(errStalled) })
	w.timer.Stop()
	return ctx, w
}

// kick notes progress. It may be called concurrently.
func (w *watchdog) kick() { w.timer.Reset(w.limit) }

// stop ends the watch and releases the context.
func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}
