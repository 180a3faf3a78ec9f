package uploader

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExtentsAreABitmap compares the ranges with one bit for each byte.
func TestExtentsAreABitmap(t *testing.T) {
	const size = 24
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var x extents
		var bits [size]bool
		for range 40 {
			off := r.Int64N(size)
			end := off + r.Int64N(size-off+1)
			put := r.IntN(3) > 0
			if put {
				x.add(off, end)
			} else {
				x.remove(off, end)
			}
			for i := off; i < end; i++ {
				bits[i] = put
			}
			checkExtents(t, x, bits[:])
		}
	}
}

func checkExtents(t *testing.T, x extents, bits []bool) {
	t.Helper()
	got := make([]bool, len(bits))
	for i, e := range x {
		require.Less(t, e.off, e.end)
		require.True(t, i == 0 || x[i-1].end < e.off, "ranges touch: %v", x)
		for b := e.off; b < e.end; b++ {
			got[b] = true
		}
	}
	require.Equal(t, bits, got)
	prefix := int64(0)
	for prefix < int64(len(bits)) && bits[prefix] {
		prefix++
	}
	require.Equal(t, prefix, x.prefix())
	for off := range bits {
		whole := true
		for end := off; end <= len(bits); end++ {
			if end > off {
				whole = whole && bits[end-1]
			}
			if x.contains(int64(off), int64(end)) != whole {
				t.Fatalf("%v contains [%d, %d): %v", x, off, end, !whole)
			}
		}
	}
}

func TestAppendingToExtentsAllocatesNothing(t *testing.T) {
	var x extents
	x.add(0, 1)
	x.add(100, 101)
	end := int64(101)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		x.add(end, end+1)
		end++
	}))
}
