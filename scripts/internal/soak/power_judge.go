//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// leftFile is a file that the tree has after a power cut.
type leftFile struct {
	path string
	sum  digest
	size int
}

// reckon holds the tree and the API against what the programs did and were told.
func (p *power) reckon(ctx context.Context, programs []*program) error {
	left, err := p.settled(ctx, p.d)
	if err != nil {
		return err
	}
	errs := []error{p.checkFiles()}
	found, err := p.walk()
	if err != nil {
		return err
	}
	for _, f := range programs {
		errs = append(errs, p.judge(ctx, f, found[f.name], left))
		delete(found, f.name)
	}
	for name := range found {
		errs = append(errs, fmt.Errorf("foreign: no program has written %s", name))
	}
	return errors.Join(errs...)
}

// walk finds the files of the tree, by the program's name.
func (p *power) walk() (map[string][]leftFile, error) {
	found := map[string][]leftFile{}
	err := filepath.WalkDir(p.d.tree(), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		program, _, _ := strings.Cut(e.Name(), ".")
		found[program] = append(found[program], leftFile{e.Name(), sha256.Sum256(content), len(content)})
		return nil
	})
	return found, err
}

// judge says what is wrong with what is left of one program's file.
func (p *power) judge(ctx context.Context, f *program, found []leftFile, left map[string]file) error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s, %s: %s", f.name, f.life.name, fmt.Sprintf(format, args...)))
	}
	for _, sum := range f.told {
		if p.holder[sum] == "" {
			complain("lost: a close has said that its File exists, and there is none")
		}
	}
	safe := f.safe == unsafe
	for _, l := range found {
		u, unfinished := left[l.path]
		if f.safe > unsafe && l.sum == f.sum() {
			safe = true
			if f.safe == recorded && unfinished && u.State == "interrupted" {
				complain("lost: %s was recorded as on the disk, and is %s: %s", l.path, u.State, u.Error)
			}
		}
		what, err := p.judgeFile(ctx, f, l, u, unfinished)
		p.sum.counts[what]++
		if err != nil {
			complain("%v", err)
		}
	}
	if !safe {
		complain("lost: %d bytes were on the disk, and are not in the tree: %v", len(f.holds), found)
	}
	if len(found) == 0 {
		p.sum.counts["gone, or never on the disk"]++
	}
	return errors.Join(errs...)
}

// judgeFile says what has become of a file, and what is wrong with that. u is what status
// says of it where it is unfinished.
func (p *power) judgeFile(ctx context.Context, f *program, l leftFile, u file, unfinished bool) (what string, err error) {
	if unfinished && u.State == "failed" {
		// The outcome of a Complete cannot be told, and the message has to name the File.
		if id := p.holder[l.sum]; !strings.Contains(u.Error, "file-") || !strings.Contains(u.Error, id) {
			err = fmt.Errorf("wrong: %s has failed, and its File %s is not named: %s", l.path, id, u.Error)
		}
		return "failed, naming candidates", err
	}
	if unfinished {
		return "interrupted", nil
	}
	state, err := p.d.attr(l.path, "state")
	if err != nil {
		return "unknown", err
	}
	if state == "empty" && l.size == 0 {
		return "empty", nil
	}
	for {
		err := compareFile(p.api, p.d, l.path, l.sum)
		switch {
		case err == nil && !f.spoken[l.sum]:
			return "completed", fmt.Errorf("torn: %s is completed, and no close has spoken of its %d bytes", l.path, l.size)
		case err == nil:
			return "completed", nil
		}
		// A damaged copy is found in the background, at any time from now on, and named.
		state, stateErr := p.d.attr(l.path, "state")
		switch {
		case stateErr != nil:
			return "damaged", errors.Join(err, stateErr)
		case state == "interrupted":
			return "damaged copy, named", nil
		case !strings.HasPrefix(err.Error(), "wrong:"):
			return "damaged", err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return "damaged", err
		}
	}
}

// tidy leaves some of the completed files for the next round, and ends the daemon.
func (p *power) tidy(ctx context.Context) error {
	entries, err := os.ReadDir(p.d.point())
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for i, f := range p.slots {
		p.slots[i] = nil
		state, err := p.d.attr(f.name, "state")
		if err != nil || state != "completed" || p.random.IntN(2) == 0 {
			continue
		}
		content, err := os.ReadFile(filepath.Join(p.d.tree(), f.name))
		if err != nil {
			return err
		}
		f.holds, f.path = content, f.name
		p.slots[i], keep[f.name] = f, true
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(p.d.point(), e.Name())))
		}
	}
	return errors.Join(err, p.d.signal(15))
}
