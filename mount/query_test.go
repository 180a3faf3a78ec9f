package mount

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// The next page begins where the last one has ended, whatever bytes the path has.
func TestNextPage(t *testing.T) {
	for path, want := range map[string]string{"a/b c": "a/b c", "\xfcber/50%": "%FCber/50%25", "über/\ufffd\n": "über/\ufffd\n", "": ""} {
		require.Equal(t, want, nextPage(path))
		text, err := json.Marshal(nextPage(path))
		require.NoError(t, err)
		var next string
		require.NoError(t, json.Unmarshal(text, &next))
		q := uploader.Query{States: []state.State{state.Failed}, After: next, Limit: 3}
		v, err := url.ParseQuery(queryValues(q).Encode())
		require.NoError(t, err)
		got, err := parseQuery(v)
		require.NoError(t, err)
		q.After = path
		require.Equal(t, q, got)
	}
	_, err := parseQuery(url.Values{fieldAfter: {"50%"}})
	require.ErrorContains(t, err, "give what next says")
}
