package uploader

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"testing"

	"uploadfs/uploader/api"

	"github.com/stretchr/testify/require"
)

// counting counts the bytes that are read through it.
type counting struct {
	io.ReaderAt
	read int64
}

func (c *counting) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, off)
	c.read += int64(n)
	return n, err
}

func sumOf(data []byte) string {
	sum := md5.Sum(data)
	return hex.EncodeToString(sum[:])
}

func TestDigestAfterEdits(t *testing.T) {
	const block = 512
	r := rand.New(rand.NewPCG(5, 6))
	ctx := context.Background()
	for range 30 {
		c := content{block: block}
		d := digest{block: block}
		current := func() uint64 { return c.gen }
		data := make([]byte, r.IntN(20*block))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		c.wrote(0, int64(len(data)))
		for range 30 {
			switch off := r.IntN(len(data) + 1); r.IntN(5) {
			case 0: // an edit
				end := off + r.IntN(len(data)-off+1)
				for i := off; i < end; i++ {
					data[i] = byte(r.Uint32())
				}
				c.wrote(int64(off), int64(end))
			case 1: // shorter or longer
				size := r.IntN(20 * block)
				c.resize(int64(size))
				data = append(data, make([]byte, max(0, size-len(data)))...)[:size]
			case 2: // hashing ahead
				_, err := d.advance(ctx, bytes.NewReader(data), int64(off), false, current, c.changedAfter)
				require.NoError(t, err)
			case 3: // another process has changed it: only the CRCs tell
				if len(data) > 0 {
					data[r.IntN(len(data))]++
				}
				require.NoError(t, d.recheck(ctx, bytes.NewReader(data)))
			default:
				got, err := d.advance(ctx, bytes.NewReader(data), int64(len(data)), true, current, c.changedAfter)
				require.NoError(t, err)
				require.Equal(t, sumOf(data), got)
			}
		}
	}
}

func TestAnEditCostsTheHashingFromThereOn(t *testing.T) {
	const block, blocks = 512, 10
	data := bytes.Repeat([]byte("x"), block*blocks)
	c, d := content{block: block}, digest{block: block}
	hash := func() int64 {
		file := &counting{ReaderAt: bytes.NewReader(data)}
		got, err := d.advance(context.Background(), file, int64(len(data)), true, func() uint64 { return c.gen }, c.changedAfter)
		require.NoError(t, err)
		require.Equal(t, sumOf(data), got)
		return file.read
	}
	require.EqualValues(t, block*blocks, hash())
	require.Zero(t, hash())
	data[7*block] = 'y'
	c.wrote(7*block, 7*block+1)
	require.EqualValues(t, 3*block, hash())
}

func TestAChangeWhileItIsHashedIsNotMissed(t *testing.T) {
	const block = 512
	data := bytes.Repeat([]byte("x"), 2*block)
	c, d := content{block: block}, digest{block: block}
	c.touch(0, 1) // a write begins
	changing := func() uint64 {
		gen := c.gen
		if len(d.gens) == 0 { // the first block is read now, and the write ends after it
			data[0] = 'y'
			defer c.wrote(0, 1)
		}
		return gen
	}
	_, err := d.advance(context.Background(), bytes.NewReader(bytes.Clone(data)), block, false, changing, c.changedAfter)
	require.NoError(t, err)
	got, err := d.advance(context.Background(), bytes.NewReader(data), 2*block, true, func() uint64 { return c.gen }, c.changedAfter)
	require.NoError(t, err)
	require.Equal(t, sumOf(data), got)
}

func TestHashingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errUnlinked)
	d := digest{block: 8}
	_, err := d.advance(ctx, bytes.NewReader(make([]byte, 16)), 16, true, func() uint64 { return 1 }, (&content{block: 8}).changedAfter)
	require.ErrorIs(t, err, errUnlinked)
}

func TestHashingAFileThatIsTooShort(t *testing.T) {
	d := digest{block: 8}
	_, err := d.advance(context.Background(), bytes.NewReader(make([]byte, 10)), 16, true, func() uint64 { return 1 }, (&content{block: 8}).changedAfter)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, api.Local, api.KindOf(err))
}
