package uploader

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
)

func TestMadeOften(t *testing.T) {
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	a, b := backing.Key{Ino: 1}, backing.Key{Ino: 2}
	var m madeOften
	require.False(t, m.has(a))
	m.add(a, at(0))
	m.add(b, at(10))
	m.add(a, at(30))
	m.add(a, at(60)) // the first one is a minute old
	require.False(t, m.has(a))
	m.add(b, at(61))
	m.add(a, at(89))
	require.True(t, m.has(a), "three within a minute")
	require.False(t, m.has(b))
	m.add(b, at(1000))
	require.Len(t, m.recent, 1, "the old ones are forgotten")
	require.Len(t, m.count, 1)
	require.True(t, m.has(a), "that it was so is not")
	m.forget(a)
	require.False(t, m.has(a))
}
