//go:build linux

package fusefs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

// backingDescriptors counts the descriptors of this process on files of the backing tree.
func (s *stack) backingDescriptors() (n int) {
	open, err := os.ReadDir("/proc/self/fd")
	require.NoError(s.t, err)
	for _, fd := range open {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, filepath.Join(s.State, "tree")+"/") {
			n++
		}
	}
	return n
}

// goroutinesIn counts the goroutines that have the function on their stack.
func goroutinesIn(function string) int {
	buf := make([]byte, 16<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), function+"(")
}

// TestWaitingFilesAreNotOpen: files that wait for their turn cost neither a descriptor
// nor a goroutine, also those that a program could have mapped.
func TestWaitingFilesAreNotOpen(t *testing.T) {
	const files, atWork = 200, 64
	s := newStack(t, stackOptions{Background: true, Stall: patience})
	arrived, open := block(s.API, func(p local.Point) bool { return p.Op == local.OpCreate })
	t.Cleanup(open)
	// 1<> opens for reading and writing.
	s.run(fmt.Sprintf(`i=0; while [ $i -lt %d ]; do printf "content of $i" 1<> $i; i=$((i+1)); done`, files))
	await(t, arrived, 32)
	require.Eventually(t, func() bool { return s.backingDescriptors() <= atWork && goroutinesIn("watchMappings.func1") == 0 },
		patience, 50*time.Millisecond, "files that wait are open")
	require.LessOrEqual(t, goroutinesIn("(*session).commitAll"), atWork)
	require.Equal(t, "uploading", s.attr(fmt.Sprint(files-1), "state"))

	// Nothing waits any more of a file that was removed, or whose upload was cancelled.
	s.run(fmt.Sprintf("rm %d", files-1))
	require.NoError(t, s.Up.Cancel(fmt.Sprint(files-2)))
	waiting, err := s.Up.Find(uploader.Query{Queued: true})
	require.NoError(t, err)
	for _, f := range waiting.Files {
		require.NotContains(t, []string{fmt.Sprint(files - 1), fmt.Sprint(files - 2)}, f.Path)
	}
	require.Equal(t, files-2, waiting.Counts[state.Uploading])
	require.Equal(t, files-2, waiting.Queued+32, "32 are being declared")
	ended, end := context.WithCancel(t.Context())
	end()
	require.NotContains(t, s.Up.Drain(ended), fmt.Sprint(files-2))
	require.NoError(t, s.Up.Retry(fmt.Sprint(files-2)))

	open()
	s.drained()
	require.Eventually(t, func() bool { return s.backingDescriptors() == 0 }, patience, 10*time.Millisecond)
	require.Len(t, s.API.Files(), files-1, "none was sent twice")
	s.completed("7", []byte("content of 7"))
}
