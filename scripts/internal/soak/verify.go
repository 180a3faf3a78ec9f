//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"uploadfs/uploader/api/local"
)

// summary is what a run has come to.
type summary struct {
	seed        uint64
	rounds      int
	ops         int   // programs run
	told        int   // contents whose close succeeded
	files       int   // in the tree, in the end
	results     int   // Files at the API
	bytes       int64 // in them
	faults      string
	resumed     int   // Files of contents whose close was cut off by a kill
	interrupted int   // files that were named as interrupted after one
	twice       int64 // bytes of parts that became part of no File
	slowest     time.Duration
	took        time.Duration
}

func (s summary) String() string {
	return fmt.Sprintf(`seed %d, %v
%d rounds, %d operations, %d successful closes
%d files in the tree, %d Files of %s at the API
faults: %s
%d uploads went on after a kill, %d files interrupted by one, slowest mount %v
%s sent twice or for nothing`,
		s.seed, s.took.Round(100*time.Millisecond), s.rounds, s.ops, s.told, s.files, s.results, humanize.IBytes(uint64(s.bytes)),
		s.faults, s.resumed, s.interrupted, s.slowest.Round(time.Millisecond), humanize.IBytes(uint64(s.twice)))
}

// total is the summary of what has happened so far. No program runs any more.
func (l *loop) total() summary {
	s := l.sum
	for _, w := range l.writers {
		s.ops += w.ops
	}
	for _, f := range l.api.Files() {
		s.results++
		s.bytes += f.Bytes
	}
	s.told = len(l.ledger.told)
	s.twice = l.api.Stats().PartBytes - s.bytes
	s.faults = l.faults.String()
	return s
}

// verify holds the tree and the API against the ledger. Everything is uploaded
// but what was interrupted.
func (l *loop) verify(ctx context.Context) error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	// Each File is a whole content that was meant, and no content has two.
	byContent, byID := map[digest]string{}, map[string]digest{}
	for _, f := range l.api.Files() {
		sum, err := fileDigest(l.api, f.ID)
		if err != nil {
			return err
		}
		if !l.ledger.meant[sum] {
			complain("wrong: File %s (%s) is %d bytes that were never meant", f.ID, f.Filename, f.Bytes)
		}
		if other, ok := byContent[sum]; ok {
			complain("doubled: Files %s and %s (%s) have one content", other, f.ID, f.Filename)
		}
		byContent[sum], byID[f.ID] = f.ID, sum
	}
	l.sum.resumed = len(byContent) - len(l.ledger.told)
	// A program that was told that the File exists was told the truth.
	for sum, path := range l.ledger.told {
		if byContent[sum] == "" {
			complain("lost: %s was closed with success, and there is no such File", path)
		}
	}
	// Each file in the tree is what its File is, or is named as interrupted.
	files, err := l.daemon.status(ctx)
	if err != nil {
		return err
	}
	interrupted := map[string]bool{}
	for _, f := range files {
		interrupted[f.Path] = true
	}
	empty := digest(sha256.Sum256(nil))
	certain := l.ledger.certain()
	err = l.walk(func(path string, sum digest) {
		l.sum.files++
		want, sure := certain[path]
		delete(certain, path)
		switch id, err := l.daemon.attr(path, "file_id"); {
		case interrupted[path] && sure:
			complain("wrong: %s was closed with success, and is interrupted", path)
		case interrupted[path], sum == empty: // empty files have no File
		case err != nil:
			complain("wrong: %w", err)
		case byID[id] != sum:
			complain("wrong: %s is not what its File %s is", path, id)
		case sure && sum != want:
			complain("wrong: %s does not hold what was written to it", path)
		}
	})
	for path := range certain {
		complain("lost: %s is not in the tree", path)
	}
	return errors.Join(append(errs, err)...)
}

// retryInterrupted sends every interrupted file as it is.
func (l *loop) retryInterrupted(ctx context.Context) error {
	files, err := l.daemon.status(ctx)
	for _, f := range files {
		if err == nil && f.State == "interrupted" {
			_, err = l.daemon.command(ctx, "retry", filepath.Join(l.daemon.point(), f.Path))
		}
	}
	return err
}

// verifyRetried compares every file of the tree with its File; empty ones have none.
func (l *loop) verifyRetried() error {
	var errs []error
	err := l.walk(func(path string, sum digest) {
		if sum == digest(sha256.Sum256(nil)) {
			return
		}
		errs = append(errs, compareFile(l.api, l.daemon, path, sum))
	})
	return errors.Join(append(errs, err)...)
}

// compareFile compares a completed file, whose content has this digest, with its File.
func compareFile(api *local.Server, d *daemon, path string, sum digest) error {
	id, err := d.attr(path, "file_id")
	if err != nil {
		return err
	}
	got, err := fileDigest(api, id)
	if err == nil && got != sum {
		err = fmt.Errorf("wrong: %s is not what its File %s is", path, id)
	}
	return err
}

// walk visits each file of the tree.
func (l *loop) walk(visit func(path string, sum digest)) error {
	tree := l.daemon.tree()
	return filepath.WalkDir(tree, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		path, err := filepath.Rel(tree, name)
		if err != nil {
			return err
		}
		visit(path, sha256.Sum256(content))
		return nil
	})
}

// fileDigest is that of a File's content.
func fileDigest(api *local.Server, id string) (digest, error) {
	r, err := api.OpenContent(id)
	if err != nil {
		return digest{}, fmt.Errorf("the File %s: %w", id, err)
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return digest{}, fmt.Errorf("the File %s: %w", id, err)
	}
	return digest(h.Sum(nil)), nil
}
