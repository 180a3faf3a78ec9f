package uploader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"uploadfs/uploader/api"
)

// rivalry is how much older an Upload can be that has led to a File only now: its
// life, and as long for its Complete. Both creations are by the API's clock.
const rivalry = 2 * time.Hour

// clockSkew is by how much the API's clock may be behind ours, where the API does
// not say when it created an Upload, and its clocks behind one another.
const clockSkew = time.Minute

// checked is the context of a Complete for the transfer; repeated says that an
// earlier call may have been carried out. The Upload's expiry does not end it: the
// API decides whether it came too late, and to give up a Complete whose outcome is
// not known could lead to a second File.
func (s *session) checked(x *transfer, repeated bool) context.Context {
	ctx := s.noted(x.life, x)
	if repeated {
		ctx = api.WithEarlierComplete(ctx)
	}
	return api.WithOutcomeCheck(ctx, func(ctx context.Context, q api.OutcomeQuestion) (api.File, bool, error) {
		return s.u.lookFor(ctx, x.upload.ID, x.spec, x.created, q)
	})
}

// errSeveral says that only a look into the Files can tell which is the
// result: another one would make it no clearer.
var errSeveral = errors.New("several Files could be the result")

// turns lets Uploads of the same name, purpose and size, which only their
// content tells apart, be completed one after the other. A File that turns up
// when one's answer was lost is then not that of another that is about to hear of
// it.
type turns struct {
	mu    sync.Mutex
	taken map[api.Spec]chan struct{} // closed when the turn is over
}

// take waits for a turn. The caller ends it when the journal has the File.
func (t *turns) take(ctx context.Context, spec api.Spec) (end func(), err error) {
	spec = api.Spec{Filename: spec.Filename, Purpose: spec.Purpose, Bytes: spec.Bytes}
	for {
		t.mu.Lock()
		other := t.taken[spec]
		if other == nil {
			break
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer t.mu.Unlock()
	over := make(chan struct{})
	t.taken[spec] = over
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taken, spec)
		close(over)
	}, nil
}

// mostListed is how many candidates a message names.
const mostListed = 10

// listed names the first few of ids, and says how many more there are.
func listed(ids []string) string {
	if more := len(ids) - mostListed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:mostListed], ", "), more)
	}
	return strings.Join(ids, ", ")
}

// lookFor finds the File that came of the Upload, if it did: the one File with
// its name, size and purpose, made since then, that no other content of the mount
// has a claim to. Several leave no way to tell, and taking the wrong one would be
// a lie. While it cannot tell, its error has [ErrOutcomeUnknown] in its chain.
func (u *Uploader) lookFor(ctx context.Context, uploadID string, spec api.Spec, created time.Time, q api.OutcomeQuestion) (api.File, bool, error) {
	files, err := u.opts.Backend.FindFiles(ctx, spec, created.Add(-clockSkew))
	if err != nil {
		return api.File{}, false, fmt.Errorf("%w; %w", err, api.ErrOutcomeUnknown)
	}
	var free []api.File
	var ids []string
	for _, f := range files {
		claimed, err := u.journal.Claimed(f.ID)
		if err != nil {
			return api.File{}, false, fmt.Errorf("%w; %w", err, api.ErrOutcomeUnknown)
		}
		late := !q.Answered.IsZero() && f.CreatedAt.After(q.Answered)
		if !claimed && !late {
			free, ids = append(free, f), append(ids, f.ID)
		}
	}
	rivals, err := u.journal.Rivals(uploadID, spec, created.Add(-rivalry))
	if err != nil {
		return api.File{}, false, fmt.Errorf("%w; %w", err, api.ErrOutcomeUnknown)
	}
	unclear := &api.Error{Op: "complete", UploadID: uploadID, Kind: api.Refused}
	switch {
	case len(free) == 0:
		return api.File{}, false, nil
	case len(free) > 1:
		unclear.Err = errors.Join(errSeveral, api.ErrOutcomeUnknown)
		unclear.Message = "its answer was lost and several Files could be the result: delete all but one at the API and retry: " + listed(ids)
		return api.File{}, false, unclear
	case !q.AlreadyCompleted():
		unclear.Err = errors.Join(q.Refusal, api.ErrOutcomeUnknown)
		unclear.Message = fmt.Sprintf("its answer was lost, then it was refused (%v), and %s may be its result: `uploadfs retry` sends it again", q.Refusal, ids[0])
		return api.File{}, false, unclear
	case rivals > 0:
		unclear.Err = api.ErrOutcomeUnknown
		unclear.Message = fmt.Sprintf("its answer was lost, and %s may be its result or that of another Upload of the same name and size: `uploadfs retry` sends it again", ids[0])
		return api.File{}, false, unclear
	}
	u.log.Info("the answer to complete was lost, and the File is there", "upload", uploadID, "file", free[0].ID)
	return free[0], true, nil
}
