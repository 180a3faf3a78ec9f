// Package apitest is shared by the tests of the uploader and of the Backends.
//
// [Memory] is a Backend in memory. It is as strict as the API is known to be. A test
// makes it fail or wait with [Memory.Fail], [Memory.Hold] and [Memory.Hook]. It
// counts its calls.
//
// [Suite] is the suite that every Backend must pass.
package apitest

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"uploadfs/uploader/api"
)

// uploadLife is how long an Upload accepts parts: one hour, as the API documents.
const uploadLife = time.Hour

type state string

const (
	pending   state = "pending"
	completed state = "completed"
	cancelled state = "cancelled"
)

// Memory is a Backend in memory. Its methods may be called concurrently. The zero
// value is not ready; use [NewMemory].
type Memory struct {
	// Now is the clock, time.Now by default. Set it before the first call.
	Now func() time.Time

	// ListLag is how long after its creation FindFiles finds a File. Set it before
	// the first call.
	ListLag time.Duration

	// NoDate leaves Error.ServerTime zero, as an API without a Date header does.
	// Set it before the first call.
	NoDate bool

	faults faults

	// mu guards the following.
	mu      sync.Mutex
	uploads map[string]*upload
	files   []*file // in order of creation
	noBytes bool    // see NullBytes
	counts  Counts
}

var (
	_ api.Backend     = (*Memory)(nil)
	_ api.FileChecker = (*Memory)(nil)
)

type upload struct {
	id      string
	spec    api.Spec
	state   state
	expires time.Time
	parts   map[string][]byte
}

type file struct {
	api.File
	created time.Time // CreatedAt before it was rounded
	content []byte
}

// Counts counts the calls of a Memory and their effects.
type Counts struct {
	Calls    map[Op]int // begun
	InFlight map[Op]int // under way now
	Peak     map[Op]int // the maximum of InFlight

	Created   int   // Uploads
	Parts     int   // stored, including those whose answer was lost
	PartBytes int64 // in them
	Completed int   // Uploads, and so Files
	Cancelled int   // Uploads
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{
		Now:     time.Now,
		uploads: make(map[string]*upload),
		counts:  Counts{Calls: make(map[Op]int), InFlight: make(map[Op]int), Peak: make(map[Op]int)},
	}
}

// Counts returns the counts as they are now.
func (m *Memory) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts
	c.Calls, c.InFlight, c.Peak = maps.Clone(c.Calls), maps.Clone(c.InFlight), maps.Clone(c.Peak)
	return c
}

// Files returns all Files, oldest first.
func (m *Memory) Files() []api.File {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []api.File
	for _, f := range m.files {
		all = append(all, f.File)
	}
	return all
}

// Content returns the bytes of a File, and whether it exists.
func (m *Memory) Content(fileID string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.files {
		if f.ID == fileID {
			return f.content, true
		}
	}
	return nil, false
}

// DeleteFile removes a File, as a DELETE at the API does.
func (m *Memory) DeleteFile(fileID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files = slices.DeleteFunc(m.files, func(f *file) bool { return f.ID == fileID })
}

// Uploads returns the IDs of the Uploads that are in a state ("pending",
// "completed", "cancelled"), sorted.
func (m *Memory) Uploads(in string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for id, u := range m.uploads {
		if string(u.state) == in {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Expire makes an Upload expire now.
func (m *Memory) Expire(uploadID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.uploads[uploadID]; u != nil {
		u.expires = m.Now()
	}
}

// NullBytes makes all Files have an unknown size: Complete and FindFiles say 0.
func (m *Memory) NullBytes() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noBytes = true
}

// answered returns f as the API answers it. mu is held.
func (m *Memory) answered(f api.File) api.File {
	if m.noBytes {
		f.Bytes = 0
	}
	return f
}

// Fixture runs the [Suite] on m itself; a test of a decorator replaces Backend.
func (m *Memory) Fixture() Fixture {
	return Fixture{
		Backend: m,
		Content: func(t testing.TB, fileID string) []byte {
			t.Helper()
			content, ok := m.Content(fileID)
			if !ok {
				t.Fatalf("there is no File %s", fileID)
			}
			return content
		},
		Expire:    func(_ testing.TB, uploadID string) { m.Expire(uploadID) },
		NullBytes: func(testing.TB) { m.NullBytes() },
	}
}
