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
// not say when it created an Upload.
const clockSkew = time.Minute

// ListingPolicy says how the File of a lost answer is looked for. Lists lag: a File
// can be listed some seconds after it was made. So the list is believed once two
// listings agree.
type ListingPolicy struct {
	Apart time.Duration // between two listings; default 10 s
	Limit time.Duration // for all of them; default 2 min
}

func (p ListingPolicy) withDefaults() ListingPolicy {
	if p.Apart == 0 {
		p.Apart = 10 * time.Second
	}
	if p.Limit == 0 {
		p.Limit = 2 * time.Minute
	}
	return p
}

// checked is the context of a Complete for the transfer; repeated says that an
// earlier call may have been carried out. The Upload's expiry does not end it: the
// API decides whether it came too late, and to give up a Complete whose outcome is
// not known could lead to a second File.
func (s *session) checked(x *transfer, repeated bool, slot *ticket) context.Context {
	ctx := api.WithAttempts(s.noted(x.life, x), slot)
	if repeated {
		ctx = api.WithEarlierComplete(ctx)
	}
	l := &lookup{u: s.u, job: s.job, uploadID: x.upload.ID, spec: x.spec, created: x.created, parts: receipts(x.parts)}
	return api.WithOutcomeCheck(ctx, l.find)
}

// errSeveral says that only a look into the Files can tell which is the
// result: another one would make it no clearer.
var errSeveral = errors.New("several Files could be the result")

// turns lets the calls of Uploads of the same name, purpose and size, which only their
// content tells apart, complete them one after the other. A File that turns up
// when one's answer was lost is then not that of another that is about to hear of
// it. One whose Complete goes on failing after most gives its turn away at each pause;
// the journal counts it among the rivals of the others.
type turns struct {
	most time.Duration

	mu    sync.Mutex
	taken map[api.Spec]chan struct{} // closed when the turn is over
}

// turn is one Upload's among the turns. One goroutine at a time uses it.
type turn struct {
	turns *turns
	spec  api.Spec
	since time.Time     // when it was first taken
	over  chan struct{} // closed when it ends; nil while it is not taken
}

// turn is that of an Upload which was declared as spec.
func (t *turns) turn(spec api.Spec) *turn {
	return &turn{turns: t, spec: api.Spec{Filename: spec.Filename, Purpose: spec.Purpose, Bytes: spec.Bytes}}
}

// take waits for the turn, if it is not taken.
func (r *turn) take(ctx context.Context) error {
	t := r.turns
	if r.over != nil {
		return nil
	}
	for {
		t.mu.Lock()
		other := t.taken[r.spec]
		if other == nil {
			break
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer t.mu.Unlock()
	r.over = make(chan struct{})
	if r.since.IsZero() {
		r.since = time.Now()
	}
	t.taken[r.spec] = r.over
	return nil
}

// yield ends the turn if the Upload has tried for so long that others should not wait.
func (r *turn) yield() {
	if time.Since(r.since) > r.turns.most {
		r.end()
	}
}

// end ends the turn, if it is taken.
func (r *turn) end() {
	t := r.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.over != nil {
		delete(t.taken, r.spec)
		close(r.over)
		r.over = nil
	}
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
