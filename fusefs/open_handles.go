//go:build linux

package fusefs

import "sync"

// openHandles is the set of open files and directories, each until its RELEASE.
type openHandles struct {
	mu  sync.Mutex // protects all
	all map[openHandle]struct{}
}

// openHandle is an open file or directory.
type openHandle interface {
	// abandon releases it at the end of the mount, when no request can arrive.
	abandon()
}

func (l *openHandles) add(a openHandle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[openHandle]struct{}{}
	}
	l.all[a] = struct{}{}
}

func (l *openHandles) remove(a openHandle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, a)
}

// abandonAll releases everything that is still open.
func (l *openHandles) abandonAll() {
	l.mu.Lock()
	all := l.all
	l.all = nil
	l.mu.Unlock()
	for a := range all {
		a.abandon()
	}
}
