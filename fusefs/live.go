//go:build linux

package fusefs

import "sync"

// live holds what is open, until its RELEASE.
type live struct {
	mu  sync.Mutex // protects all
	all map[abandoner]struct{}
}

// abandoner is an open file or directory.
type abandoner interface {
	// abandon releases it at the end of the mount, when no request can come.
	abandon()
}

func (l *live) add(a abandoner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[abandoner]struct{}{}
	}
	l.all[a] = struct{}{}
}

func (l *live) remove(a abandoner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, a)
}

// abandon ends everything that is still open.
func (l *live) abandon() {
	l.mu.Lock()
	all := l.all
	l.all = nil
	l.mu.Unlock()
	for a := range all {
		a.abandon()
	}
}
