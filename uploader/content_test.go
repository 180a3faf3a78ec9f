package uploader

import (
	"math"
	"math/rand/v2"
	"testing"

	"uploadfs/uploader/api"

	"github.com/stretchr/testify/require"
)

// TestGenerationsFollowChanges compares the generations by block with the time of
// the last change of every byte.
func TestGenerationsFollowChanges(t *testing.T) {
	const size, block = 100, 8
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		c := content{block: block}
		var changed [size]uint64
		for range 40 {
			off := r.Int64N(size)
			end := off + r.Int64N(size-off+1)
			before := c.gen
			switch r.IntN(3) {
			case 0:
				c.touch(off, end)
			case 1:
				if c.wrote(off, end); end > off {
					require.GreaterOrEqual(t, c.size, end)
				}
			case 2:
				off, end = min(off, c.size), max(off, c.size)
				to := off
				if c.size == off {
					to = end
				}
				c.resize(to)
				require.Equal(t, to, c.size)
				require.True(t, len(c.written) == 0 || c.written[len(c.written)-1].end <= to)
			}
			require.Equal(t, before+1, c.gen)
			for b := off; b < end; b++ {
				changed[b] = c.gen
			}
			for gen := range c.gen + 1 {
				off := r.Int64N(size)
				end := off + r.Int64N(size-off+1)
				// Whole blocks are exact; within one, a neighbour's change counts too.
				lo, hi := off/block*block, min((end+block-1)/block*block, size)
				later := false
				for b := lo; b < hi && off < end; b++ {
					later = later || changed[b] > gen
				}
				require.Equal(t, later, c.changedAfter(off, end, gen))
			}
		}
	}
}

func TestAChangeFarBeyondTheLargestUploadNeedsNoMemory(t *testing.T) {
	c := content{block: api.MinPart}
	c.touch(math.MaxInt64-1, math.MaxInt64)
	require.LessOrEqual(t, len(c.gens), api.MaxUpload/api.MinPart+1)
	require.True(t, c.changedAfter(api.MaxUpload, api.MaxUpload+1, 0))
	require.False(t, c.changedAfter(0, api.MaxUpload, 0))
	require.False(t, c.changedAfter(0, 0, 0))
}

func TestRandomWritesDoNotPileUp(t *testing.T) {
	c := content{block: 1 << 20}
	for i := int64(0); i < 3*maxWritten; i++ {
		c.wrote(2*i, 2*i+1)
		require.LessOrEqual(t, len(c.written), maxWritten)
	}
}

func TestASizeSetAheadOfTheData(t *testing.T) {
	c := content{block: 8}
	c.resize(20)
	require.True(t, c.ahead)
	require.False(t, c.written.contains(0, 1), "it was not written")
	c.wrote(0, 20)
	c.clearWritten()
	require.False(t, c.ahead)
	require.False(t, c.written.contains(0, 20), "it is an old content now")
	require.EqualValues(t, 20, c.size)
}
