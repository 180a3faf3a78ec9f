package fusefs

import (
	"sync"

	"uploadfs/uploader/backing"
)

// The kernel keeps a file's attributes for [cacheTime]. It forgets them itself after
// a write that it made, and learns them anew from the answer to a SETATTR. Other
// changes of the backing file it cannot see: a store through a mapping, which in
// passthrough is of the backing file, and what the daemon does beside its answer.

// invalidateAttr makes the kernel ask for the node's attributes before it uses them
// again. Any request may call it: with a negative offset the kernel drops no page,
// and takes no lock that a request holds. An error means that the kernel does not know
// the node, or that the mount has ended.
func (n *node) invalidateAttr() { n.NotifyContent(-1, 0) }

// writtenNodes finds the node of a file that has had a handle for writing. Its
// mapping can change the file after the last RELEASE, so the node stays until the
// kernel forgets it.
type writtenNodes struct {
	mu         sync.Mutex // protects what follows
	nodes      map[backing.Key]*node
	ended      bool           // with the mount
	background sync.WaitGroup // of changed
}

func (w *writtenNodes) add(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes == nil {
		w.nodes = map[backing.Key]*node{}
	}
	w.nodes[n.key()] = n
}

func (w *writtenNodes) forget(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes[n.key()] == n {
		delete(w.nodes, n.key())
	}
}

// changed follows a change of a file that no request has made. The uploader calls it
// under its locks, so it leaves the call into the kernel to a goroutine.
func (w *writtenNodes) changed(key backing.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.nodes[key]; n != nil && !w.ended {
		w.background.Go(n.invalidateAttr)
	}
}

// end waits for the goroutines of changed. Nothing is left to do for it then.
func (w *writtenNodes) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.background.Wait()
}
