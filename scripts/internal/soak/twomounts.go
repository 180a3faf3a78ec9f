//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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
	up     [2]bool

	cut struct { // Completes of this round, under the mutex of cutCompletes
		before, after int
	}
}

// written is one file of a round.
type written struct {
	d       *daemon
	path    string
	content []byte
	err     error // of the program that wrote it
}

func (s *twoMounts) begin(context.Context) error {
	for i := range s.mounts {
		var err error
		if s.mounts[i], err = s.newMount(fmt.Sprint("mount", i)); err != nil {
			return err
		}
	}
	return nil
}

func (s *twoMounts) end() error { return errors.Join(s.mounts[0].end(), s.mounts[1].end()) }

func (s *twoMounts) round(ctx context.Context) error {
	for i, d := range s.mounts {
		if !s.up[i] {
			if err := d.mount(ctx); err != nil {
				return err
			}
			s.up[i] = true
		}
	}
	// A lost answer costs a quarter of a minute of listing, so most rounds have none.
	lost := s.random.IntN(100) < 12
	mu := s.cutCompletes(lost)
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
	mu.Lock()
	s.sum.counts["Completes cut off before"] += s.cut.before
	s.sum.counts["Completes cut off after"] += s.cut.after
	s.cut.before, s.cut.after = 0, 0
	mu.Unlock()
	if killed >= 0 {
		if err := s.mounts[killed].mount(ctx); err != nil {
			return err
		}
	}
	return s.reckon(ctx, files, killed)
}

// cutCompletes breaks the connection of every third Complete before it is carried out
// and, if lost, of every third afterwards.
func (s *twoMounts) cutCompletes(lost bool) *sync.Mutex {
	var mu sync.Mutex
	random := s.random.Uint64()
	next := func() uint64 { // xorshift: the rig's own source is its goroutine's
		random ^= random << 13
		random ^= random >> 7
		random ^= random << 17
		return random
	}
	s.set(func(p local.Point) *local.Fault {
		if p.Op != local.OpComplete || p.Stage == local.StageBody || p.Stage == local.StageDone && !lost {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if next()%3 != 0 {
			return nil
		}
		if p.Stage == local.StageDone {
			s.cut.after++
		} else {
			s.cut.before++
		}
		return &local.Fault{Reset: true}
	})
	return &mu
}

func (s *twoMounts) reckon(ctx context.Context, files []*written, killed int) error {
	left := map[*daemon]map[string]file{}
	for _, d := range s.mounts {
		var err error
		if left[d], err = settled(ctx, d); err != nil {
			return err
		}
	}
	ids := map[string]*written{}
	var errs []error
	for _, w := range files {
		sum := digest(sha256.Sum256(w.content))
		f, unfinished := left[w.d][w.path]
		switch {
		case unfinished && f.State == "failed":
			// It may be at the API: nothing tells, and the message has to say so.
			s.sum.counts["failed, naming candidates"]++
			s.doubles[sum] = true
			if !strings.Contains(f.Error, "file-") {
				errs = append(errs, fmt.Errorf("%s failed, and no File is named: %s", w.path, f.Error))
			}
			if w.err == nil {
				errs = append(errs, fmt.Errorf("wrong: %s was closed with success, and has failed", w.path))
			}
			continue
		case unfinished: // interrupted
			s.sum.counts["interrupted"]++
			if w.err == nil || killed < 0 || w.d != s.mounts[killed] {
				errs = append(errs, fmt.Errorf("wrong: %s is interrupted, and its daemon was not killed: %s", w.path, f.Error))
			}
			continue
		}
		if w.err != nil && (killed < 0 || w.d != s.mounts[killed]) {
			errs = append(errs, fmt.Errorf("wrong: %s is completed, and its program failed: %w", w.path, w.err))
		}
		got, err := s.sameAsFile(w.d, w.path)
		if errors.Is(err, os.ErrNotExist) && w.err != nil {
			s.sum.counts["never made"]++
			continue
		}
		if err != nil {
			if w.err != nil && len(w.content) > 0 { // an empty file has no File
				s.sum.counts["never written"]++
				continue
			}
			errs = append(errs, err)
			continue
		}
		if got != sum && w.err == nil {
			errs = append(errs, fmt.Errorf("wrong: %s does not hold what was written to it", w.path))
		}
		id, err := w.d.attr(w.path, "file_id")
		if other := ids[id]; other != nil {
			err = errors.Join(err, fmt.Errorf("foreign: %s of both mounts has File %s", w.path, id))
		}
		ids[id] = w
		s.sum.counts["completed"]++
		errs = append(errs, err)
	}
	for _, d := range s.mounts {
		errs = append(errs, removeAll(d))
	}
	return errors.Join(errs...)
}
