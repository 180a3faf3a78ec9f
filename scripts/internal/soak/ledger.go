//go:build linux

package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// digest names a content. No two operations mean to write the same.
type digest [sha256.Size]byte

// ledger is what programs meant to write, and what they were told of it. All
// methods may be called concurrently.
type ledger struct {
	mu sync.Mutex // guards the following
	// meant are the contents that some operation meant a file to have when
	// it is closed. Nothing else may ever become a File.
	meant map[digest]bool
	// told are the contents whose close has returned success: the File
	// exists, for ever.
	told map[digest]string
	// holds is what a path holds for certain, since the last operation on it
	// succeeded. A path that is not here holds nothing, or nothing known.
	holds map[string]digest
}

// intend notes a content before the first byte of it is written.
func (l *ledger) intend(content []byte) digest {
	sum := digest(sha256.Sum256(content))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.meant == nil {
		l.meant, l.told, l.holds = map[digest]bool{}, map[digest]string{}, map[string]digest{}
	}
	l.meant[sum] = true
	return sum
}

// isMeant reports whether a content was meant to be a file's.
func (l *ledger) isMeant(sum digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.meant[sum]
}

// doubt notes that an operation on the path has begun.
func (l *ledger) doubt(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holds, path)
}

// closed notes that a program was told that path holds this content now.
func (l *ledger) closed(path string, sum digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told[sum] = path
	l.holds[path] = sum
}

// kept notes that path holds a content that it had elsewhere, or before.
func (l *ledger) kept(path string, sum digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds[path] = sum
}

// certain are the paths of which it is known what they hold.
func (l *ledger) certain() map[string]digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]digest, len(l.holds))
	for path, sum := range l.holds {
		all[path] = sum
	}
	return all
}

// compareTree looks whether the tree holds what it has to.
func (l *ledger) compareTree(tree string) error {
	for path, want := range l.certain() {
		content, err := os.ReadFile(filepath.Join(tree, path))
		if err != nil {
			return fmt.Errorf("lost: %w", err)
		}
		if digest(sha256.Sum256(content)) != want {
			return fmt.Errorf("wrong: %s does not hold what was written to it, but %d other bytes", path, len(content))
		}
	}
	return nil
}
