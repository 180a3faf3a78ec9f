package mount

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
)

// checks answers each check with the next error that it is given.
type checks chan error

func (c checks) CheckKey(ctx context.Context) (time.Time, error) {
	select {
	case err := <-c:
		return time.Time{}, err
	case <-ctx.Done():
		return time.Time{}, context.Cause(ctx)
	}
}

// What was wrong with the key is said until a check finds it right.
func TestKeyCheckGoesOn(t *testing.T) {
	answers := make(checks)
	k := startKeyCheck(answers, time.Millisecond, slog.New(slog.DiscardHandler))
	defer k.close()
	answers <- errors.New("no route to host")
	require.Equal(t, []string{"the endpoint does not answer (no route to host): files wait until it does"}, k.notes())
	require.NoError(t, k.refusal())
	refused := &api.Error{Op: "check", Kind: api.Denied, Status: 401, Message: "Incorrect API key."}
	answers <- refused
	answers <- refused // the first has been taken in
	require.Equal(t, []string{"the API refuses the key (Incorrect API key.): uploads fail until there is another one"}, k.notes())
	require.EqualError(t, k.refusal(), "the API refuses the key (Incorrect API key.): set another key, or give --no-check to mount all the same")
	answers <- nil
	k.ended.Wait() // there is nothing left to check
	require.Empty(t, k.notes())
	require.NoError(t, k.refusal())
}

// The end of the mount does not wait for an answer.
func TestKeyCheckEnds(t *testing.T) {
	k := startKeyCheck(make(checks), time.Hour, slog.New(slog.DiscardHandler))
	k.close()
	require.NoError(t, k.refusal())
	var none *keyCheck
	none.close()
	require.NoError(t, none.refusal())
	require.Empty(t, none.notes())
}
