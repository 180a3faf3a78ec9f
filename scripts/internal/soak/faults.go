//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"uploadfs/uploader/api/local"
)

// faultRate is how many requests in a thousand fail.
const faultRate = 100

// kind is a way in which requests fail, at the stages at which that can happen.
type kind struct {
	name   string
	weight int
	fault  local.Fault
	stages []local.Stage
}

const page = "<html><body>Bad gateway</body></html>"

var anywhere = []local.Stage{local.StageHead, local.StageBody, local.StageReceived, local.StageDone}

var kinds = []kind{
	{"500", 3, local.Fault{Status: 500, Message: "The server had an error."}, anywhere},
	{"503", 3, local.Fault{Status: 503, Message: "Overloaded."}, anywhere},
	{"429", 1, local.Fault{Status: 429, Code: "rate_limit_exceeded", Message: "Rate limit reached.", RetryAfter: time.Second},
		[]local.Stage{local.StageHead}},
	{"reset", 4, local.Fault{Reset: true}, []local.Stage{local.StageHead, local.StageBody, local.StageReceived}},
	{"lost reply", 5, local.Fault{Reset: true}, []local.Stage{local.StageDone}},
	{"html", 2, local.Fault{Status: 502, RawBody: page}, anywhere},
	{"garbage", 2, local.Fault{Status: 200, RawBody: page}, anywhere},
	{"slow", 5, local.Fault{Delay: 300 * time.Millisecond}, anywhere},
}

// faults fails requests at random and counts what it has done.
type faults struct {
	mu      sync.Mutex // guards the following
	random  *rand.Rand
	doomed  map[any]plan // by request
	counts  map[string]int
	stopped bool
}

// plan is what will happen to a request, and where.
type plan struct {
	kind  kind
	stage local.Stage
}

func newFaults(seed uint64) *faults {
	return &faults{random: rand.New(rand.NewPCG(seed, 1<<32)), doomed: map[any]plan{}, counts: map[string]int{}}
}

// stop lets every later request succeed.
func (f *faults) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
}

// intercept is the API's hook. A request's fate is decided at its head.
func (f *faults) intercept(p local.Point) *local.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Stage == local.StageHead && !f.stopped && f.random.IntN(1000) < faultRate {
		f.doomed[p.Request] = f.plan(p.Request.ContentLength != 0)
	}
	doom, ok := f.doomed[p.Request]
	if ok && p.Stage == local.StageDone {
		delete(f.doomed, p.Request) // also when it was refused before: nothing follows
	}
	if !ok || doom.stage != p.Stage {
		return nil
	}
	delete(f.doomed, p.Request)
	f.counts[doom.kind.name]++
	fault := doom.kind.fault
	return &fault
}

// plan draws a fate. mu is held.
func (f *faults) plan(hasBody bool) plan {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	n := f.random.IntN(total)
	i := 0
	for ; n >= kinds[i].weight; i++ {
		n -= kinds[i].weight
	}
	stage := kinds[i].stages[f.random.IntN(len(kinds[i].stages))]
	if stage == local.StageBody && !hasBody {
		stage = local.StageHead
	}
	return plan{kinds[i], stage}
}

// String says how often which kind of fault was injected.
func (f *faults) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for name, n := range f.counts {
		list = append(list, fmt.Sprintf("%d %s", n, name))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
