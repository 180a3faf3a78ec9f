//go:build linux

package uploader_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/api/retry"
	"uploadfs/uploader/state"
)

// TestACreateThatIsGivenUpInItsPauseFreesItsSlot: only an attempt under way has an
// answer to wait for. In the pause before the next one, a file that is removed, or gets
// a held name, lets others through at once.
func TestACreateThatIsGivenUpInItsPauseFreesItsSlot(t *testing.T) {
	for name, giveUp := range map[string]func(w *harness){
		"removed": func(w *harness) { w.remove("a") },
		"renamed": func(w *harness) { w.rename("a", "a.tmp") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, patient, func(o *uploader.Options) {
				inner := o.Backend.(interface{ Unwrap() api.Backend }).Unwrap()
				o.Backend = retry.New(inner, retry.Options{First: time.Millisecond, Max: 4 * time.Millisecond, MaxRetryAfter: 10 * patience})
				o.Parallel = 1
			})
			w.mem.Hook(func(_ context.Context, c apitest.Call) error {
				if c.Op == apitest.OpCreate && c.Stage == apitest.Before && c.N == 1 {
					return &api.Error{Status: http.StatusServiceUnavailable, RetryAfter: 10 * patience, Message: "Try later."}
				}
				return nil
			})
			f := w.openFile("a")
			f.replace(data(2*chunk, 1))
			done := f.committing()
			require.Eventually(t, func() bool { return w.status("a").State == state.Retrying }, patience, tick)
			giveUp(w)
			_ = done.await(t)
			f.close()

			require.NoError(t, w.put("b", data(2*chunk, 2)))
			w.uploaded("b")
			require.Equal(t, 2, w.mem.Counts().Calls[apitest.OpCreate])
			require.Equal(t, 1, w.mem.Counts().Created)
		})
	}
}
