package uploader

import (
	"sync"
	"time"

	"uploadfs/uploader/backing"
)

// A program that opens, writes and closes a file again and again makes a File each time.
// oftenFiles of them within oftenWithin are a reason to say what is made for it.
const (
	oftenFiles  = 3
	oftenWithin = time.Minute
)

// madeOften knows of which files so many Files were made in so short a time. It
// remembers that for as long as the daemon runs.
type madeOften struct {
	mu     sync.Mutex // guards what follows
	recent []made     // of the last oftenWithin, in order
	count  map[backing.Key]int
	often  map[backing.Key]bool
}

// made is a File that was made.
type made struct {
	of backing.Key
	at time.Time
}

// add counts a File that is made at now.
func (m *madeOften) add(of backing.Key, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.count == nil {
		m.count, m.often = map[backing.Key]int{}, map[backing.Key]bool{}
	}
	for len(m.recent) > 0 && now.Sub(m.recent[0].at) >= oftenWithin {
		old := m.recent[0].of
		m.recent = m.recent[1:]
		if m.count[old]--; m.count[old] == 0 {
			delete(m.count, old)
		}
	}
	m.recent = append(m.recent, made{of, now})
	m.count[of]++
	if m.count[of] >= oftenFiles {
		m.often[of] = true
	}
}

// has reports whether Files of the file were made often.
func (m *madeOften) has(of backing.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.often[of]
}

// forget forgets a file that was removed.
func (m *madeOften) forget(of backing.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.often, of)
}
