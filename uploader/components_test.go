package uploader

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
)

func TestLostRangesAreWholeAgainPieceByPiece(t *testing.T) {
	var l lostRanges
	first, second := errors.New("first"), errors.New("second")
	require.False(t, l.any())
	require.False(t, l.clear(0, 100), "nothing was missing")
	l.add(10, 20, first)
	l.add(30, 40, second)
	require.Equal(t, second, l.err)
	require.False(t, l.clear(0, 20))
	require.True(t, l.any())
	require.False(t, l.clear(30, 39))
	require.Equal(t, second, l.err)
	require.True(t, l.clear(39, 1000))
	require.NoError(t, l.err)
	require.False(t, l.any())
	l.addAll(first)
	require.False(t, l.clear(0, 1<<40))
	require.True(t, l.clear(0, 1<<62+1<<62-1))
}

func TestAPredictionAllowsWhatIsFullAndConfirmed(t *testing.T) {
	p := prediction{chunk: 10}
	p.reset()
	c := &content{block: 10}
	write := func(off, end int64) bool {
		c.wrote(off, end)
		return p.noteWritten(c, off, end)
	}
	require.False(t, write(0, 9))
	require.True(t, write(9, 10))
	require.False(t, write(3, 5), "it was full before")
	chunk, ok := p.next()
	require.True(t, ok)
	require.Zero(t, chunk)
	require.False(t, p.allows(0, 10, 25), "the size is unknown")
	p.confirm(0, 25, c.written)
	require.True(t, p.allows(0, 10, 25))
	require.False(t, p.allows(0, 10, 26), "another size was declared")
	require.False(t, p.allows(0, 11, 25), "the next chunk is not full")

	require.True(t, write(20, 25), "the last chunk ends where the file will end")
	chunk, _ = p.next()
	require.EqualValues(t, 2, chunk)
	require.False(t, p.allows(20, 25, 25), "it is not confirmed")
	p.confirm(2, 25, c.written)
	require.True(t, p.allows(20, 25, 25))

	write(25, 26)
	require.Zero(t, p.size, "larger than predicted")
	require.False(t, p.allows(0, 10, 25))
	p.giveUp()
	require.True(t, p.unpredictable)
	p.reset()
	require.False(t, p.unpredictable)
	_, ok = p.next()
	require.False(t, ok)
}

func TestTheLastChunkMayBeFullBeforeTheSizeIsKnown(t *testing.T) {
	p := prediction{chunk: 10}
	p.reset()
	c := &content{block: 10}
	c.wrote(0, 15)
	require.True(t, p.noteWritten(c, 0, 15))
	p.confirm(0, 15, c.written)
	chunk, ok := p.next()
	require.True(t, ok)
	require.EqualValues(t, 1, chunk)
}

func TestEachReasonToSendAgainCountsOnce(t *testing.T) {
	gone := &api.Error{Kind: api.Gone}
	refused := &api.Error{Kind: api.Refused}
	a := attempts{forced: true}
	require.NotEmpty(t, a.reason(gone, true, false))
	require.Empty(t, a.reason(gone, true, false))
	require.Empty(t, a.reason(refused, true, false), "nothing was replaced")
	require.NotEmpty(t, a.reason(refused, true, true))
	require.Empty(t, a.reason(refused, true, true))
	require.Empty(t, a.reason(&api.Error{Kind: api.Refused, Err: errSeveral}, false, false), "another File makes it no clearer")
	require.NotEmpty(t, a.reason(refused, false, false))
	require.Empty(t, a.reason(refused, false, false))
	require.Empty(t, a.reason(&api.Error{Kind: api.Denied}, true, true))
}

func TestTheBackingFileIsOpenWhileItIsUsed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, []byte("x"), 0o600))
	opened := 0
	open := func() (*os.File, error) {
		opened++
		return os.Open(name)
	}
	var b backingFile
	require.ErrorIs(t, b.acquire(func() (*os.File, error) { return nil, os.ErrNotExist }), os.ErrNotExist)
	require.False(t, b.isOpen())
	require.NoError(t, b.acquire(open))
	require.NoError(t, b.acquire(open))
	require.Equal(t, 1, opened)
	f := b.f
	require.False(t, b.release())
	require.True(t, b.isOpen())
	require.True(t, b.release())
	require.False(t, b.isOpen())
	_, err := f.Stat()
	require.ErrorIs(t, err, os.ErrClosed)
}

// A file that nobody writes to is polled less and less often, and one that changes soon again.
func TestPollPause(t *testing.T) {
	for quiet, want := range map[time.Duration]time.Duration{
		0:                       pollInterval,
		8 * pollInterval:        pollInterval,
		16 * pollInterval:       2 * pollInterval,
		8 * idlePollInterval:    idlePollInterval,
		1000 * idlePollInterval: idlePollInterval,
	} {
		require.Equal(t, want, pollPause(quiet))
	}
}
