package uploader

import (
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/journal"
)

func TestUnclearOutcomes(t *testing.T) {
	done := api.OutcomeQuestion{Refusal: &api.Error{Kind: api.Refused, Err: api.ErrAlreadyCompleted}}
	other := api.OutcomeQuestion{Refusal: &api.Error{Kind: api.Gone, Message: "No such Upload"}}
	one, two := []api.File{{ID: "file-1"}}, []api.File{{ID: "file-1"}, {ID: "file-2"}}
	require.NoError(t, unclear(one, false, done))
	require.NoError(t, unclear(nil, false, other), "the refusal stands")
	require.ErrorIs(t, unclear(two, false, done), errSeveral)
	for _, err := range []error{unclear(two, false, other), unclear(one, true, done), unclear(one, false, other)} {
		require.ErrorContains(t, err, "file-1")
	}
	require.ErrorContains(t, unclear(one, false, other), "No such Upload")
	require.ErrorContains(t, unclear(nil, false, done), "lists no File")
}

func TestAFileIsComparedWithItsParts(t *testing.T) {
	crc := func(s string) uint32 { return crc32.Checksum([]byte(s), castagnoli) }
	check := func(writes ...string) (differs, ended bool) {
		c := &partChecker{parts: []journal.Part{{Len: 4, CRC: crc("abcd")}, {Off: 4, Len: 2, CRC: crc("ef")}}}
		for _, w := range writes {
			if _, err := c.Write([]byte(w)); err != nil {
				require.ErrorIs(t, err, errDiffers)
				break
			}
		}
		return c.differs, c.ended()
	}
	for _, c := range []struct {
		writes         []string
		differs, ended bool
	}{
		{[]string{"abcdef"}, false, true},
		{[]string{"a", "bcde", "", "f"}, false, true},
		{[]string{"abcd"}, false, false}, // shorter
		{[]string{"abcdefg"}, true, true},
		{[]string{"abcX"}, true, false},
		{[]string{"abcd", "eX"}, true, false},
	} {
		differs, ended := check(c.writes...)
		require.Equal(t, c.differs, differs, "%q", c.writes)
		require.Equal(t, c.ended, ended, "%q", c.writes)
	}
}
