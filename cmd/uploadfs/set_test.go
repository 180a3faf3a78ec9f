//go:build linux

package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/state"
)

// A paused mount sends nothing, and a close waits; resume lets both go on. Settings hold
// until the mount ends.
func TestPauseAndSet(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	b.mount("--limit-upload", "100MiB/s", "--parallel", "2", "--close-timeout", "1s")
	rep := b.status()
	require.Equal(t, []int64{100 << 20, 2}, []int64{rep.Limit, int64(rep.Parallel)})
	require.False(t, rep.Paused)

	b.ok("pause", b.point)
	require.Contains(t, b.ok("status", b.point), b.point+" (paused: nothing is sent until uploadfs resume "+b.point+")\n")
	b.write("in", "hello")
	cp := b.command("cp", "in", filepath.Join(b.point, "a"))
	require.NoError(t, cp.Start())
	b.await("the close waits", func() bool {
		rep := b.status()
		return rep.Counts[state.Uploading] == 1 && len(rep.Files) == 1 && rep.Files[0].UploadID == ""
	})
	b.refused(1, "not completed in time", "wait", "--timeout", "2s", filepath.Join(b.point, "a")) // and --close-timeout has passed
	require.Empty(t, b.info("a").UploadID, "nothing was sent")
	b.ok("resume", b.point)
	require.NoError(t, cp.Wait(), "the pause does not count for --close-timeout")
	require.Equal(t, state.Completed, b.info("a").State)

	b.ok("set", b.point, "limit-upload=1MiB", "parallel=3")
	require.Contains(t, b.ok("status", b.point), "1.0 MiB/s")
	require.Equal(t, 3, b.status().Parallel)
	b.ok("set", b.point, "limit-upload=off")
	require.Zero(t, b.status().Limit)
	for arg, text := range map[string]string{
		"limit-upload=1KiB": "at least 16KiB", "parallel=0": "give 1 to 256 parts", "colour=red": "use limit-upload=RATE or parallel=N", "parallel": "give 1 to 256",
	} {
		b.refused(2, text, "set", b.point, arg)
	}
	b.refused(1, "is no uploadfs mount", "pause", b.dir)
	b.ok("unmount", b.point)
}
