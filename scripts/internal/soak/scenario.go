//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"uploadfs/uploader/api/local"
)

// scenario is a mode of the soak whose rounds follow one script: something goes wrong
// at one step of a file's life, and each round ends with a reckoning.
type scenario interface {
	// begin makes what all rounds need.
	begin(ctx context.Context) error
	// round is one mishap. When it returns, all is uploaded or said not to be.
	round(ctx context.Context) error
	// end takes away what begin has made.
	end() error
}

// scenarios are the modes but kill, which is a [loop].
var scenarios = map[string]func(*rig) scenario{
	"outlive":    func(r *rig) scenario { return &outlive{rig: r} },
	"power":      func(r *rig) scenario { return &power{rig: r} },
	"two-mounts": func(r *rig) scenario { return &twoMounts{rig: r} },
}

// rig is what scenarios have in common: the API, and what may become a File.
type rig struct {
	options
	api    *local.Server
	url    string
	random *rand.Rand
	ledger ledger

	// intercept decides about the API's calls; nil lets all of them succeed.
	intercept atomic.Pointer[local.InterceptFunc]

	seen    map[string]bool   // Files that have been compared, by ID
	holder  map[digest]string // the File that has a content
	doubles map[digest]bool   // contents that may have more than one File
	sum     scenarioSummary
}

// scenarioSummary is what a run has come to.
type scenarioSummary struct {
	mode   string
	seed   uint64
	rounds int
	counts map[string]int // of files, by what has become of them; and of steps
	files  int            // at the API
	bytes  int64
	took   time.Duration
	whole  bool // nothing was torn, doubled, foreign or lost
}

func (s scenarioSummary) String() string {
	var list []string
	for what, n := range s.counts {
		list = append(list, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(list)
	verdict := "it did not come to its end"
	if s.whole {
		verdict = "nothing torn, doubled, foreign or lost"
	}
	return fmt.Sprintf("%s: seed %d, %v, %d rounds\n%v\n%d Files of %s at the API\n%s",
		s.mode, s.seed, s.took.Round(100*time.Millisecond), s.rounds, list, s.files, humanize.IBytes(uint64(s.bytes)), verdict)
}

// runScenario is a whole run. The error says what was torn, doubled, foreign or lost.
func runScenario(ctx context.Context, o options) (sum scenarioSummary, err error) {
	newScenario, ok := scenarios[o.mode]
	if !ok {
		return sum, fmt.Errorf("there is no mode %q: use kill, outlive, power or two-mounts", o.mode)
	}
	r := &rig{
		options: o, random: rand.New(rand.NewPCG(o.seed, 1)),
		seen: map[string]bool{}, holder: map[digest]string{}, doubles: map[digest]bool{},
		sum: scenarioSummary{mode: o.mode, seed: o.seed, counts: map[string]int{}},
	}
	var stop func() error
	r.api, r.url, stop, err = serve(o, func(p local.Point) *local.Fault {
		if f := r.intercept.Load(); f != nil {
			return (*f)(p)
		}
		return nil
	})
	if err != nil {
		return r.sum, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	s := newScenario(r)
	defer func() { err = errors.Join(err, s.end()) }()
	if err := s.begin(ctx); err != nil {
		return r.sum, err
	}
	began := time.Now()
	defer func() {
		for _, f := range r.api.Files() {
			r.sum.files++
			r.sum.bytes += f.Bytes
		}
		r.sum.took = time.Since(began)
		sum = r.sum
	}()
	for r.sum.rounds < o.rounds && (o.length == 0 || time.Since(began) < o.length) {
		err := s.round(ctx)
		if err == nil {
			err = r.checkFiles()
		}
		if err != nil {
			return r.sum, fmt.Errorf("seed %d, round %d: %w", o.seed, r.sum.rounds+1, err)
		}
		if r.sum.rounds++; r.sum.rounds%10 == 0 {
			r.log("%d rounds", r.sum.rounds)
		}
	}
	r.sum.whole = r.sum.rounds > 0
	return r.sum, nil
}

// newMount makes a mount with a directory of its own.
func (r *rig) newMount(name string, flags ...string) (*daemon, error) {
	o := r.options
	o.dir = filepath.Join(r.dir, name)
	d := newDaemon(o, r.url, flags...)
	return d, os.MkdirAll(d.point(), 0o755)
}

// set replaces what happens to the API's calls; nil lets all succeed.
func (r *rig) set(f local.InterceptFunc) {
	if f == nil {
		r.intercept.Store(nil)
		return
	}
	r.intercept.Store(&f)
}

// away is an API that refuses all calls for a while.
func away(local.Point) *local.Fault {
	return &local.Fault{Status: 503, Message: "Overloaded."}
}

// content is size bytes that no other file has.
func (r *rig) content(size int) []byte { return randomBytes(r.random, size) }

// size is mostly small, and sometimes of two parts.
func (r *rig) size() int {
	if r.random.IntN(12) == 0 {
		return 8<<20 + 1 + r.random.IntN(1<<20)
	}
	return 1 + r.random.IntN(200_000)
}

// checkFiles looks at the Files that are new: each is a whole content that was meant,
// and no content has two.
func (r *rig) checkFiles() error {
	var errs []error
	for _, f := range r.api.Files() {
		if r.seen[f.ID] {
			continue
		}
		sum, err := fileDigest(r.api, f.ID)
		if err != nil {
			return err
		}
		r.seen[f.ID] = true
		if !r.ledger.isMeant(sum) {
			errs = append(errs, fmt.Errorf("torn: File %s (%s) is %d bytes that were never meant", f.ID, f.Filename, f.Bytes))
		}
		if other := r.holder[sum]; other != "" && !r.doubles[sum] {
			errs = append(errs, fmt.Errorf("doubled: Files %s and %s (%s) have one content", other, f.ID, f.Filename))
		}
		r.holder[sum] = f.ID
	}
	return errors.Join(errs...)
}

// settled waits until each file of the mount is completed, interrupted or failed, and
// returns those that are not completed.
func (r *rig) settled(ctx context.Context, d *daemon) (map[string]file, error) {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	return d.settled(ctx, "interrupted", "failed")
}

// sameAsFile compares a completed file with its File.
func (r *rig) sameAsFile(d *daemon, path string) (content digest, err error) {
	b, err := os.ReadFile(filepath.Join(d.tree(), path))
	if err != nil {
		return digest{}, fmt.Errorf("lost: %w", err)
	}
	content = sha256.Sum256(b)
	return content, compareFile(r.api, d, path, content)
}

// removeAll removes all files of the mount.
func removeAll(d *daemon) error {
	entries, err := os.ReadDir(d.point())
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(d.point(), e.Name())))
	}
	return err
}
