package fusefs_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
)

// The comparison of old files with the journal is held up until the end, so each file
// is compared by the request that needs it.
func TestAMountServesFilesThatItHasNotComparedYet(t *testing.T) {
	s := newStack(t, stackOptions{Names: uploader.NamePolicy{HoldFor: patience}})
	s.run(`mkdir d; for f in same written cut renamed removed linked d/below; do echo $f > $f; done; echo held > held.tmp; echo a > waiting.tmp`)
	id := s.attr("same", "file_id")
	s.unmount()
	tree := filepath.Join(s.State, "tree")
	require.NoError(t, os.WriteFile(filepath.Join(tree, "changed"), []byte("behind the mount"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "same too"), []byte("x"), 0o644))
	gate := make(chan struct{})
	s.opts.Compare = gate
	s.mount()

	require.Equal(t, id, s.attr("same", "file_id"))
	require.Equal(t, "interrupted", s.attr("changed", "state"))
	s.run(`echo more >> written; : > cut; mv renamed again; rm removed; ln linked link; rm linked; mv held.tmp held; mv d e; echo new > e/new`)
	s.run(`echo b >> waiting.tmp`)
	require.False(t, s.log.has("since an earlier mount"), "the daemon's own descriptor is no program's")
	require.Equal(t, "held", s.attr("waiting.tmp", "state"))
	s.completed("written", []byte("written\nmore\n"))
	s.completed("again", []byte("renamed\n"))
	s.completed("link", []byte("linked\n"))
	s.completed("e/below", []byte("d/below\n"))
	s.completed("e/new", []byte("new\n"))
	require.Equal(t, "empty", s.attr("cut", "state"))
	s.eventually("held", "completed")
	snap, err := s.Up.Snapshot()
	require.NoError(t, err)
	require.NotNil(t, snap.Comparing)

	close(gate)
	require.Eventually(t, func() bool {
		snap, err = s.Up.Snapshot()
		require.NoError(t, err)
		return snap.Comparing == nil
	}, patience, 5*time.Millisecond)
	require.Len(t, snap.Files, 3, "the held one, and those that no mount has written")
	s.completed("written", []byte("written\nmore\n"))
	s.completed("same", []byte("same\n"))
}
