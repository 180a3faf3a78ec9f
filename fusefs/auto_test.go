package fusefs_test

import (
	"testing"
	"time"

	"uploadfs/uploader/api"

	"github.com/stretchr/testify/require"
)

// lastUpload returns the sizes of the newest Upload's parts in file order. It checks
// their bounds.
func (s *stack) lastUpload() (parts []int64) {
	s.t.Helper()
	all := s.API.Uploads()
	up := all[len(all)-1]
	for i, p := range up.Listed {
		parts = append(parts, p.Bytes)
		require.LessOrEqual(s.t, p.Bytes, int64(api.MaxPart))
		if i < len(up.Listed)-1 {
			require.GreaterOrEqual(s.t, p.Bytes, int64(api.MinPart))
		}
	}
	return parts
}

// TestAutoPartSize: parts are of a size that keeps all four connections busy.
func TestAutoPartSize(t *testing.T) {
	var sent sentParts
	sent.begin()
	s := newStack(t, stackOptions{Part: -1, Wrap: sent.wrap})
	s.run(`printf x > one; head -c 9000000 /dev/urandom > nine`)
	s.completed("one", []byte("x"))
	s.sameAsFile("nine")
	require.Equal(t, []int64{8 * mib, 9000000 - 8*mib}, s.lastUpload())

	const size = 136 * mib
	src := largeSource(t, size)
	p := s.copyInTwo(src, "f", 130*mib)
	// Two whole chunks of 64 MiB are full; three parts of 34 MiB lie in them.
	require.Eventually(t, func() bool { return s.attr("f", "progress") == "3/4" }, patience, time.Millisecond)
	p.send("go on")
	require.NoError(t, p.wait())
	s.run(`cmp "$1" f`, src)
	s.sameAsFile("f")
	parts := s.lastUpload()
	require.Equal(t, []int64{size / 4, size / 4, size / 4}, parts[:3])
	// The rest is divided again at the close; in write-back it may be small.
	require.GreaterOrEqual(t, len(parts), 4)
	sent.nothingTwice(t, 1+2+len(parts))

	sent.begin()
	s.run(`printf CHANGED | dd of=f bs=1M seek=60 conv=notrunc status=none`)
	s.run(`printf CHANGED | dd of="$1" bs=1M seek=60 conv=notrunc status=none; cmp "$1" f`, src)
	s.sameAsFile("f")
	require.Equal(t, []int64{size / 4, size / 4, size / 4, size / 4}, s.lastUpload())
	sent.nothingTwice(t, 4)
}
