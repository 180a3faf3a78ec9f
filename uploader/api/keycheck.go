package api

import (
	"context"
	"time"
)

// KeyChecker is implemented by a Backend that can try its key.
type KeyChecker interface {
	// CheckKey makes one cheap call with the key, and one attempt of it. Its error is
	// that call's: [Denied] with status 401 refuses the key, with 403 the call. now is
	// when the API answered, by its own clock and in whole seconds; it is zero where
	// the API did not answer or does not say.
	CheckKey(ctx context.Context) (now time.Time, err error)
}
