package uploader

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatATargetSurvives: a content can be read as long as no byte below its size
// has changed, and where that can be known.
func TestWhatATargetSurvives(t *testing.T) {
	const size = 100
	type change struct{ off, end int64 }
	for name, c := range map[string]struct {
		before  []change // under way at the close
		changes []change
		exact   bool // write-back
		proven  bool
		want    bool
	}{
		"nothing":                              {want: true},
		"an append":                            {changes: []change{{100, 120}}, exact: true, want: true},
		"two appends":                          {changes: []change{{100, 120}, {120, 140}}, exact: true, want: true},
		"beyond a hole":                        {changes: []change{{500, 501}}, exact: true, want: true},
		"the first byte":                       {changes: []change{{0, 1}}, exact: true},
		"the last byte":                        {changes: []change{{99, 100}}, exact: true},
		"across the end":                       {changes: []change{{99, 120}}, exact: true},
		"an append, then a byte":               {changes: []change{{100, 120}, {50, 51}}, exact: true},
		"no byte":                              {changes: []change{{50, 50}}, exact: true, want: true},
		"an append under way":                  {before: []change{{100, 120}}, exact: true, want: true},
		"a write under way":                    {before: []change{{40, 60}}, exact: true},
		"growth that hides where it was":       {changes: []change{{100, 120}}},
		"growth, and the content is proven":    {changes: []change{{100, 120}}, proven: true, want: true},
		"shorter, and the content was proven":  {changes: []change{{60, 100}}, proven: true},
		"under way, and the content is proven": {before: []change{{0, 100}}, proven: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := content{block: 16}
			b.wrote(0, size)
			for _, ch := range c.before {
				b.begin(ch.off, ch.end)
			}
			goal := b.mark()
			require.EqualValues(t, size, goal.size)
			b.targets = []*target{goal}
			for _, ch := range c.changes {
				b.begin(ch.off, ch.end)
				b.end(ch.off)
				b.touch(ch.off, ch.end)
			}
			changed := b.gen != goal.gen || len(b.pending) > 0
			require.Equal(t, c.want, goal.whole(changed, c.exact, c.proven))
		})
	}
}

// TestAnAppendLeavesTheLastPartCurrent compares what changedFor says with the bytes
// that have changed, of parts that were read at any generation.
func TestAnAppendLeavesTheLastPartCurrent(t *testing.T) {
	const block, most = 8, 60
	r := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		c := content{block: block}
		c.wrote(0, 1+r.Int64N(most))
		for range r.IntN(5) {
			off := r.Int64N(c.size)
			c.wrote(off, off+1)
		}
		goal := c.mark()
		c.targets = []*target{goal}
		for range 10 {
			c.wrote(c.size, c.size+1+r.Int64N(5))
		}
		require.True(t, goal.whole(true, true, false))
		for off := int64(0); off < goal.size; off += block {
			end := min(off+block, goal.size)
			require.False(t, c.changedFor(goal, off, end, goal.gen), "what was read at the close is current")
			require.True(t, c.changedFor(goal, off, end, 0), "what was read before it was written is not")
		}
		require.True(t, c.changedAfter(goal.size-1, goal.size, goal.gen) || goal.size%block == 0, "the block has changed")
		off := r.Int64N(goal.size)
		c.wrote(off, off+1)
		require.False(t, goal.whole(true, true, false))
		require.True(t, c.changedFor(goal, off, off+1, goal.gen))
	}
}

// TestRangesAreProvenOneByOne: each part needs a CRC, and a part of another content
// ends it.
func TestRangesAreProvenOneByOne(t *testing.T) {
	goal := (&content{block: 8, size: 20}).mark()
	parts := cut(0, 20, 8)
	for i, p := range parts {
		require.False(t, goal.proves(parts), "%d parts", i)
		goal.proven[p.extent()] = uint32(i)
	}
	require.True(t, goal.proves(parts))
	require.False(t, goal.proves(cut(0, 20, 7)), "cut otherwise")
	goal.foreign = true
	require.False(t, goal.proves(parts))
}
