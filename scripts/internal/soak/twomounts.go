//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"uploadfs/uploader/api/local"
)

// twoMounts are two mounts on one key. They write files of the same names and sizes at
// the same time, and Completes are cut off before or after they are carried out.
type twoMounts struct {
	*rig
	mounts [2]*daemon
	cut    cutCompletes
}

// cutCompletes breaks the connection of every third Complete before it is carried out
// and, where answers may be lost, of every third afterwards. Its methods may be called
// concurrently.
type cutCompletes struct {
	mu            sync.Mutex // guards the following
	random        *rand.Rand
	loseAnswers   bool
	before, after int // Completes that were cut off
}

func (c *cutCompletes) intercept(p local.Point) *local.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := p.Stage == local.StageDone
	switch {
	case p.Op != local.OpComplete, p.Stage == local.StageBody, done && !c.loseAnswers, c.random.IntN(3) != 0:
		return nil
	case done:
		c.after++
	default:
		c.before++
	}
	return &local.Fault{Reset: true}
}

// begin begins a round.
func (c *cutCompletes) begin(loseAnswers bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loseAnswers = loseAnswers
}

// count adds what was cut off in all rounds.
func (c *cutCompletes) count(counts map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts["Completes cut off before"], counts["Completes cut off after"] = c.before, c.after
}

// written is one file of a round.
type written struct {
	d       *daemon
	path    string
	content []byte
	err     error // of the program that wrote it
}

func (s *twoMounts) begin(ctx context.Context) error {
	s.cut.random = rand.New(rand.NewPCG(s.seed, 2))
	for i := range s.mounts {
		var err error
		if s.mounts[i], err = s.newMount(fmt.Sprint("mount", i)); err != nil {
			return err
		}
	}
	return errors.Join(s.mounts[0].mount(ctx), s.mounts[1].mount(ctx))
}

func (s *twoMounts) end() error { return errors.Join(s.mounts[0].end(), s.mounts[1].end()) }

func (s *twoMounts) round(ctx context.Context) error {
	// A lost answer costs a quarter of a minute of listing, so most rounds have none.
	lost := s.random.IntN(100) < 12
	s.cut.begin(lost)
	s.set(s.cut.intercept)
	if lost && s.random.IntN(3) == 0 {
		s.api.SetFaults(local.Faults{ListLag: time.Duration(s.random.IntN(3000)) * time.Millisecond})
	}
	killed := -1
	if s.random.IntN(4) == 0 {
		killed = s.random.IntN(2)
	}

	var files []*written
	for i := range 4 {
		size := s.size()
		for _, d := range s.mounts {
			w := &written{d: d, path: fmt.Sprintf("out%d.json", i), content: s.content(size)}
			s.ledger.intend(w.content)
			files = append(files, w)
		}
	}
	var running sync.WaitGroup
	for _, w := range files {
		running.Go(func() {
			cmd := exec.CommandContext(ctx, "dd", "of="+filepath.Join(w.d.point(), w.path), "bs=64k", "iflag=fullblock", "status=none")
			cmd.Stdin = bytes.NewReader(w.content)
			w.err = cmd.Run()
		})
	}
	if killed >= 0 {
		time.Sleep(time.Duration(s.random.IntN(700)) * time.Millisecond)
		if err := s.mounts[killed].kill(); err != nil {
			return err
		}
		s.sum.counts["kills"]++
	}
	running.Wait()
	s.set(nil)
	s.api.SetFaults(local.Faults{})
	s.cut.count(s.sum.counts)
	if killed >= 0 {
		if err := s.mounts[killed].mount(ctx); err != nil {
			return err
		}
	}
	return s.reckon(ctx, files, killed)
}

func (s *twoMounts) reckon(ctx context.Context, files []*written, killed int) error {
	left := map[*daemon]map[string]file{}
	for _, d := range s.mounts {
		var err error
		if left[d], err = s.settled(ctx, d); err != nil {
			return err
		}
	}
	ids := map[string]bool{}
	var errs []error
	for _, w := range files {
		f, unfinished := left[w.d][w.path]
		id, err := s.judge(w, f, unfinished, killed >= 0 && w.d == s.mounts[killed])
		if id != "" && ids[id] {
			err = errors.Join(err, fmt.Errorf("foreign: %s of both mounts has File %s", w.path, id))
		}
		ids[id] = true
		errs = append(errs, err)
	}
	for _, d := range s.mounts {
		errs = append(errs, removeAll(d))
	}
	return errors.Join(errs...)
}

// judge says what is wrong with a file, which status calls f if it is unfinished, and
// returns the ID of its File. killed says that its daemon was killed in this round.
func (s *twoMounts) judge(w *written, f file, unfinished, killed bool) (id string, err error) {
	counts := s.sum.counts
	switch {
	case unfinished && f.State == "failed":
		// It may be at the API: nothing tells, and the message has to say so.
		counts["failed, naming candidates"]++
		s.doubles[sha256.Sum256(w.content)] = true
		if !strings.Contains(f.Error, "file-") {
			err = fmt.Errorf("%s failed, and no File is named: %s", w.path, f.Error)
		}
		if w.err == nil {
			err = errors.Join(err, fmt.Errorf("wrong: %s was closed with success, and has failed", w.path))
		}
		return "", err
	case unfinished: // interrupted
		counts["interrupted"]++
		if w.err == nil || !killed {
			err = fmt.Errorf("wrong: %s is interrupted, and its daemon was not killed: %s", w.path, f.Error)
		}
		return "", err
	case w.err != nil && killed:
		// The program may have come no further than to the name, or not even there.
		fi, err := os.Stat(filepath.Join(w.d.tree(), w.path))
		if errors.Is(err, os.ErrNotExist) || err == nil && fi.Size() == 0 {
			counts["never written"]++
			return "", nil
		}
	case w.err != nil:
		err = fmt.Errorf("wrong: %s is completed, and its program failed: %w", w.path, w.err)
	}
	counts["completed"]++
	got, differs := s.sameAsFile(w.d, w.path)
	if differs == nil && w.err == nil && got != sha256.Sum256(w.content) {
		differs = fmt.Errorf("wrong: %s does not hold what was written to it", w.path)
	}
	id, noID := w.d.attr(w.path, "file_id")
	return id, errors.Join(err, differs, noID)
}
