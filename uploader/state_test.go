package uploader

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// legal is the table of moves once more, drawn: a row for each state a file
// leaves, a column for each that it comes to, both in the order of state.All.
const legal = `
              writing uploading retrying failed interrupted held excluded completed empty
writing          .        x         .       x        x        x      x        .       x
uploading        x        .         x       x        x        x      x        x       x
retrying         x        x         .       x        x        x      x        x       x
failed           x        x         .       .        x        x      x        .       x
interrupted      x        x         .       x        .        x      x        .       x
held             x        x         .       x        x        .      x        .       .
excluded         x        x         .       x        x        x      .        .       .
completed        x        .         .       .        .        .      .        .       .
empty            x        .         .       .        .        .      .        .       .
`

func TestEveryCellOfTheStateTable(t *testing.T) {
	rows := strings.Split(strings.TrimSpace(legal), "\n")
	columns := strings.Fields(rows[0])
	require.Len(t, columns, len(state.All))
	require.Len(t, rows[1:], len(state.All))

	log := &logged{}
	u := openTest(t, Options{Logger: slog.New(log)})
	for i, row := range rows[1:] {
		cells := strings.Fields(row)
		from := state.State(cells[0])
		require.Equal(t, state.All[i], from)
		for k, cell := range cells[1:] {
			to := state.State(columns[k])
			require.Equal(t, cell == "x", from.CanBecome(to), "%s to %s", from, to)

			s := newSession(u.Uploader, backing.Key{Ino: uint64(100 + i), Birth: int64(k)})
			s.rec.State = from
			log.clear()
			s.mu.Lock()
			s.move(to, nil)
			s.mu.Unlock()
			require.Equal(t, from != to && cell != "x", log.has("illegal change of state"), "%s to %s", from, to)
			require.Equal(t, to, s.status.Load().State)
			r, err := u.journal.Get(s.key)
			require.NoError(t, err)
			require.Equal(t, to, r.State)
		}
	}
}

func TestPendingStates(t *testing.T) {
	pending := []state.State{state.Writing, state.Uploading, state.Retrying, state.Held}
	for _, s := range state.All {
		if s.Pending() {
			require.Contains(t, pending, s)
		} else {
			require.NotContains(t, pending, s)
		}
	}
}

func TestStatusOfParts(t *testing.T) {
	st := &Status{parts: []string{"a", "", "c"}}
	require.Equal(t, "", st.PartsDone(), "there is no Upload")
	require.Equal(t, []string{"", "a", "", "c", ""}, []string{st.PartAt(-1), st.PartAt(0), st.PartAt(1), st.PartAt(2), st.PartAt(3)})
	st.UploadID, st.Acked, st.Total = "upload_1", 2, 3
	require.Equal(t, "2/3", st.PartsDone())
}
