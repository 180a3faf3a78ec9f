//go:build linux

package fusefs

import (
	"slices"
	"sync"
)

// orphans are inodes that have no name, any more or yet, and that the kernel knows.
// A program may use one through an O_PATH descriptor, or as its working directory,
// and the kernel itself sends the times of a file after it has removed its name. No
// path leads there, so the daemon keeps a descriptor until the kernel forgets the
// inode. It forgets a file that nothing uses at once, and its blocks are free then.
type orphans struct {
	mu      sync.Mutex // protects what follows
	kept    map[*node]pathFD
	victims []victim
	linked  []*node // kept ones that the requests under way give a name
}

// victim is an inode that the request under way takes a name from.
type victim struct {
	node *node // nil if the kernel knows another inode by that name
	pathFD
}

// add takes over a descriptor of what may lose its last name, until keepNameless.
// nameLock.names is locked.
func (o *orphans) add(n *node, p pathFD) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.victims = append(o.victims, victim{n, p})
}

// keepNameless keeps the descriptors of victims that have no name left, and returns
// the others. nameLock.names is locked, and go-fuse's tree is up to date.
func (o *orphans) keepNameless() (unused []pathFD) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range o.victims {
		if v.node == nil || v.node.hasName() {
			unused = append(unused, v.pathFD)
			continue
		}
		if replaced, ok := o.kept[v.node]; ok {
			unused = append(unused, replaced)
		}
		o.keepLocked(v.node, v.pathFD)
	}
	o.victims = nil
	return unused
}

// keep takes over a descriptor of n, which never had a name.
func (o *orphans) keep(n *node, p pathFD) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keepLocked(n, p)
}

func (o *orphans) keepLocked(n *node, p pathFD) {
	if o.kept == nil {
		o.kept = map[*node]pathFD{}
	}
	o.kept[n] = p
}

// link tells that n is about to get a name, see forgetLinked.
func (o *orphans) link(n *node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.kept[n]; ok {
		o.linked = append(o.linked, n)
	}
}

// forgetLinked closes what is kept for inodes that have got a name, when it is in
// go-fuse's tree: the kernel may not forget them for long.
func (o *orphans) forgetLinked() {
	o.mu.Lock()
	var named []*node
	o.linked = slices.DeleteFunc(o.linked, func(n *node) bool {
		if n.hasName() {
			named = append(named, n)
		}
		return n.hasName()
	})
	o.mu.Unlock()
	for _, n := range named {
		o.forget(n)
	}
}

// open duplicates the descriptor that is kept for n. The caller closes it.
func (o *orphans) open(n *node) (p pathFD, ok bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept, ok := o.kept[n]
	if !ok {
		return -1, false, nil
	}
	p, err = kept.duplicate()
	return p, true, err
}

// forget closes what is kept for n.
func (o *orphans) forget(n *node) {
	o.mu.Lock()
	p, ok := o.kept[n]
	delete(o.kept, n)
	o.linked = slices.DeleteFunc(o.linked, func(l *node) bool { return l == n })
	o.mu.Unlock()
	if ok {
		p.close()
	}
}

// forgetAll closes everything, when no request can arrive.
func (o *orphans) forgetAll() {
	o.mu.Lock()
	kept := o.kept
	o.kept = nil
	o.mu.Unlock()
	for _, p := range kept {
		p.close()
	}
}
