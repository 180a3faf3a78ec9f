//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outlive are programs that go on writing when the daemon has ended, through
// descriptors and mappings that are the kernel's. The files wait for an API that is
// away, the daemon is killed or told to end, and the next one finds the writers.
//
// This process is these programs. It serves no mount, so it may wait for one.
type outlive struct {
	*rig
	d    *daemon
	path string // the write path in use
}

// survivor is what a program does with its file after the close that counts.
type survivor int

const (
	gone          survivor = iota // nothing: the file is closed
	neverClosed                   // it has not been closed at all
	reopened                      // it is open again, and nothing is written
	writesBetween                 // it is written while there is no daemon
	writesLater                   // it is written beside the next daemon
	stores                        // it is mapped, closed, and stored into while there is no daemon
	survivors
)

func (k survivor) String() string {
	return [...]string{"closed", "never closed", "reopened", "written between", "written later", "stored into"}[k]
}

// held is a file of a round, and what its program has of it.
type held struct {
	kind    survivor
	path    string
	content []byte // at the close
	file    *os.File
	mapped  []byte
	changed bool // a later write has reached the backing file
}

func (s *outlive) begin(ctx context.Context) (err error) {
	if s.d, err = s.newMount("mount", "--close", "background", "--drain-timeout", "10ms"); err != nil {
		return err
	}
	if err := s.d.mount(ctx); err != nil {
		return err
	}
	r, err := s.d.report(ctx)
	s.path = r.WritePath
	return err
}

const passthrough = "passthrough"

func (s *outlive) end() error { return s.d.end() }

func (s *outlive) round(ctx context.Context) error {
	s.set(away)
	var files []*held
	defer func() {
		for _, h := range files {
			h.release()
		}
	}()
	for i := range 6 {
		h := &held{kind: survivor(s.random.IntN(int(survivors))), path: fmt.Sprint("file", i), content: s.content(s.size())}
		if h.kind == stores && s.path != passthrough {
			h.kind = gone // the pages of a dead mount are gone, and a store is SIGBUS
		}
		files = append(files, h)
		if err := s.write(h); err != nil {
			return err
		}
	}
	signal := syscall.SIGKILL
	if s.random.IntN(2) == 0 {
		signal = syscall.SIGTERM
	}
	s.sum.counts[signal.String()]++
	time.Sleep(time.Duration(s.random.IntN(200)) * time.Millisecond)
	if err := s.d.signal(signal); err != nil {
		return err
	}
	for _, h := range files {
		if h.kind == writesBetween || h.kind == stores {
			s.change(h)
		}
	}
	s.set(nil)
	if err := s.d.mount(ctx); err != nil {
		return err
	}
	time.Sleep(time.Duration(s.random.IntN(100)) * time.Millisecond)
	for _, h := range files {
		if h.kind == writesLater {
			s.change(h)
		}
	}
	time.Sleep(time.Duration(s.random.IntN(500)) * time.Millisecond)
	for _, h := range files {
		h.release()
	}
	return s.reckon(ctx, files)
}

// write writes the file and closes it, and leaves what its program keeps.
func (s *outlive) write(h *held) error {
	name := filepath.Join(s.d.point(), h.path)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if h.kind == neverClosed {
		h.file = f
		_, err := f.Write(h.content[:len(h.content)/2+1])
		return err // half a file: its whole is not meant to be one either
	}
	s.ledger.intend(h.content)
	if _, err := f.Write(h.content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil || h.kind == gone {
		return err
	}
	if h.file, err = os.OpenFile(name, os.O_RDWR, 0); err != nil || h.kind != stores {
		return err
	}
	h.mapped, err = unix.Mmap(int(h.file.Fd()), 0, len(h.content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return errors.Join(err, h.file.Close())
}

// change writes through what the program has kept.
func (s *outlive) change(h *held) {
	off := s.random.IntN(len(h.content))
	if h.mapped != nil {
		h.mapped[off]++
		h.changed = true
		return
	}
	_, err := h.file.WriteAt([]byte("later"), int64(off))
	// In write-back the kernel takes the bytes into a cache that no daemon empties.
	h.changed = err == nil && s.path == passthrough
}

// release ends the program. What close says on a dead mount is no matter.
func (h *held) release() {
	if h.mapped != nil {
		unix.Munmap(h.mapped)
		h.mapped = nil
	}
	if h.file != nil {
		h.file.Close()
	}
}

func (s *outlive) reckon(ctx context.Context, files []*held) error {
	left, err := s.settled(ctx, s.d)
	if err != nil {
		return err
	}
	var errs []error
	complain := func(h *held, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s, %s: %s", h.path, h.kind, fmt.Sprintf(format, args...)))
	}
	for _, h := range files {
		f, unfinished := left[h.path]
		switch {
		case unfinished && f.State == "failed":
			complain(h, "wrong: it has failed: %s", f.Error)
		case unfinished && h.kind == gone:
			complain(h, "lost: it was closed and is interrupted: %s", f.Error)
		case unfinished:
			s.sum.counts["interrupted, "+h.kind.String()]++
		case h.kind == neverClosed:
			complain(h, "torn: it is half a file, and is completed")
		default:
			s.sum.counts["completed, "+h.kind.String()]++
			got, err := s.sameAsFile(s.d, h.path)
			switch {
			case err != nil:
				complain(h, "%v", err)
			case !h.changed && got != digest(sha256.Sum256(h.content)):
				complain(h, "wrong: it does not hold what was written to it")
			case h.changed:
				complain(h, "wrong: it was changed after its close, and is completed")
			}
		}
	}
	return errors.Join(append(errs, removeAll(s.d))...)
}
