package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"uploadfs/uploader/api"
)

const (
	keyCheckTimeout = 3 * time.Second  // of the check for which the mount waits
	keyCheckAgain   = 30 * time.Second // between later ones, each of which may take as long
)

// keyCheck tries the API key while the mount is being made. Where something is wrong, it
// tries again until nothing is. nil stands for a mount that does not check.
type keyCheck struct {
	checker api.KeyChecker
	log     *slog.Logger
	again   time.Duration
	first   chan struct{} // closed when the first answer is there
	stop    context.CancelFunc
	ended   sync.WaitGroup

	mu  sync.Mutex
	err error // of the last check
}

// startKeyCheck begins to check. The caller must call close.
func startKeyCheck(checker api.KeyChecker, again time.Duration, log *slog.Logger) *keyCheck {
	ctx, stop := context.WithCancel(context.Background())
	k := &keyCheck{checker: checker, log: log, again: again, first: make(chan struct{}), stop: stop}
	k.ended.Go(func() { k.run(ctx) })
	return k
}

func (k *keyCheck) run(ctx context.Context) {
	err := k.check(ctx, keyCheckTimeout)
	close(k.first)
	if err == nil || ctx.Err() != nil {
		return
	}
	k.log.Warn(keyNote(err))
	tick := time.NewTicker(k.again)
	defer tick.Stop()
	for err != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err = k.check(ctx, k.again)
		}
	}
	k.log.Info("the API accepts the key")
}

// check makes one check and keeps its error.
func (k *keyCheck) check(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer in %s", timeout))
	defer cancel()
	_, err := k.checker.CheckKey(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
	return err
}

// refusal waits for the first check, and returns an error if the API refuses the key.
func (k *keyCheck) refusal() error {
	if k == nil {
		return nil
	}
	<-k.first
	if !refusesKey(k.last()) {
		return nil
	}
	return fmt.Errorf("the API refuses the key (%s): set another key, or give --no-check to mount all the same", apiWords(k.last()))
}

// notes waits for the first check, and says what is wrong now.
func (k *keyCheck) notes() []string {
	if k == nil {
		return nil
	}
	<-k.first
	if err := k.last(); err != nil {
		return []string{keyNote(err)}
	}
	return nil
}

func (k *keyCheck) last() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// close ends the check.
func (k *keyCheck) close() {
	if k != nil {
		k.stop()
		k.ended.Wait()
	}
}

// refusesKey reports whether the error of a check says that no call with this key will do.
func refusesKey(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Kind == api.Denied && e.Status == http.StatusUnauthorized
}

// keyNote says in one sentence what the error of a check means for the mount.
func keyNote(err error) string {
	switch {
	case refusesKey(err):
		return fmt.Sprintf("the API refuses the key (%s): uploads fail until there is another one", apiWords(err))
	case api.KindOf(err) == api.Denied:
		return fmt.Sprintf("the API does not let this key list Files (%s): give a restricted key the right to read and write them", apiWords(err))
	case api.KindOf(err) == api.Transient:
		return fmt.Sprintf("the endpoint does not answer (%s): files wait until it does", apiWords(err))
	}
	return fmt.Sprintf("the key could not be checked (%s): check the base URL", apiWords(err))
}

// apiWords are the message of an error of the API, without the call that it is of.
func apiWords(err error) string {
	var e *api.Error
	if errors.As(err, &e) && e.Message != "" {
		return e.Message
	}
	return api.OneLine(err)
}
