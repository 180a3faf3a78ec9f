package uploader

import (
	"sync"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// troubled knows which files have become failed or interrupted since the Uploader was
// opened. What an earlier mount left so does not count, nor what the mount itself finds
// so when it begins.
type troubled struct {
	mu   sync.Mutex // guards keys; a leaf
	keys map[backing.Key]bool
}

// note takes in that a file is in the state now; left says that an earlier mount left it
// failed or interrupted, and that neither a program nor the user has touched it since.
func (t *troubled) note(key backing.Key, now state.State, left bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Kept() && !left {
		if t.keys == nil {
			t.keys = map[backing.Key]bool{}
		}
		t.keys[key] = true
		return
	}
	delete(t.keys, key)
}

// has reports whether the file has become failed or interrupted since the Uploader was
// opened.
func (t *troubled) has(key backing.Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[key]
}

// forget forgets a file that was removed.
func (t *troubled) forget(key backing.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, key)
}
