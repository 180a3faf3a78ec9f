package uploader

import (
	"math/rand/v2"
	"testing"

	"uploadfs/uploader/api"
	"uploadfs/uploader/journal"

	"github.com/stretchr/testify/require"
)

// planned checks that the parts cover the Upload once and in order, each of a size
// that the API takes.
func planned(t *testing.T, x *transfer) {
	t.Helper()
	end := int64(0)
	for _, p := range x.parts {
		require.Equal(t, end, p.off)
		require.Positive(t, p.n)
		require.LessOrEqual(t, p.n, int64(api.MaxPart))
		end += p.n
	}
	require.Equal(t, x.spec.Bytes, end)
}

func TestDividedPartsKeepEverySlotBusy(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ size, slots, parts, largest int64 }{
		{1, 8, 1, 1},
		{8 * mib, 8, 1, 8 * mib},
		{64 * mib, 8, 8, 8 * mib},
		{64*mib + 1, 8, 8, 9 * mib},
		{512 * mib, 8, 8, 64 * mib},
		{513 * mib, 8, 16, 33 * mib},
		{api.MaxUpload, 1, 128, 64 * mib},
	} {
		x := &transfer{spec: api.Spec{Bytes: c.size}, parts: cut(0, c.size, api.MaxPart)}
		x.divide(c.slots)
		planned(t, x)
		require.Len(t, x.parts, int(c.parts), "%d bytes", c.size)
		require.Equal(t, c.largest, x.parts[0].n, "%d bytes", c.size)
	}
}

func TestDividingLeavesWhatIsSentAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		size := 1 + r.Int64N(3<<30)
		x := &transfer{spec: api.Spec{Bytes: size}, parts: cut(0, size, api.MaxPart)}
		kept := map[*part]part{}
		for range 2 {
			for _, p := range x.parts {
				switch r.IntN(4) {
				case 0:
					p.id = "acknowledged"
				case 1:
					p.sending = true
				}
				if !p.free() {
					kept[p] = *p
				}
			}
			x.divide(1 + r.Int64N(16))
			planned(t, x)
		}
		left := 0
		for _, p := range x.parts {
			if was, ok := kept[p]; ok {
				require.Equal(t, was, *p)
				left++
			}
		}
		require.Equal(t, len(kept), left)
	}
}

func TestResumedPartsMayHaveAnySize(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 500 {
		const chunk = 100
		size := 1 + r.Int64N(5000)
		x := &transfer{spec: api.Spec{Bytes: size}}
		var known []journal.Part
		for off := r.Int64N(300); off < size; off += r.Int64N(300) {
			known = append(known, journal.Part{Off: off, Len: r.Int64N(300), CRC: 7, ID: "part"})
		}
		x.resumed(known, chunk)
		planned(t, x)
		taken := 0
		for _, p := range x.parts {
			if p.id == "" {
				require.LessOrEqual(t, p.n, int64(chunk))
				continue
			}
			require.Contains(t, known, journal.Part{Off: p.off, Len: p.n, CRC: p.crc, ID: p.id})
			require.False(t, p.matched, "it was not compared yet")
			taken++
		}
		require.Equal(t, len(known), taken+x.replaced)
	}
}
