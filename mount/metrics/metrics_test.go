package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
	"uploadfs/uploader/api/retry"
	"uploadfs/uploader/state"
)

func TestSuite(t *testing.T) {
	apitest.Suite(t, func(t *testing.T) apitest.Fixture {
		f := apitest.NewMemory().Fixture()
		m := New()
		f.Backend = m.Calls(m.Attempts(f.Backend))
		return f
	})
}

// What is counted over an outage, a part that is sent twice, and Uploads that come to
// nothing.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, m := apitest.NewMemory(), New()
		b := m.Calls(retry.New(m.Attempts(memory), retry.Options{}))
		spec := api.Spec{Filename: "a", Purpose: "batch", MimeType: "text/plain", Bytes: 6}
		create := func() string {
			up, err := b.Create(t.Context(), spec)
			require.NoError(t, err)
			return up.ID
		}
		noted := 0
		ctx := api.WithRetryNote(t.Context(), func(error, time.Time) { noted++ })
		part := func(upload, content string) string {
			id, err := b.AddPart(ctx, upload, io.NewSectionReader(strings.NewReader(content), 0, int64(len(content))))
			require.NoError(t, err)
			return id
		}
		memory.Fail(apitest.OpCreate, apitest.Before, apitest.ServerError(), apitest.ServerError())
		memory.Fail(apitest.OpPart, apitest.After, apitest.Broken()) // its answer is lost
		up := create()
		changed, sent := part(up, "abcdef"), part(up, "abcdEf")
		require.NotEqual(t, changed, sent)
		require.Equal(t, 2, noted, "the notes of the caller are passed on")
		_, err := b.Complete(t.Context(), up, []string{sent}, "")
		require.NoError(t, err)

		cancelled := create()
		part(cancelled, "abc")
		require.NoError(t, b.Cancel(t.Context(), cancelled))
		part(create(), "ab") // and then it expires
		time.Sleep(25 * time.Hour)
		create()

		got := func(name string) string {
			var out bytes.Buffer
			families, err := m.registry.Gather()
			require.NoError(t, err)
			for _, f := range families {
				if f.GetName() == name {
					for _, s := range f.GetMetric() {
						for _, l := range s.GetLabel() {
							out.WriteString(l.GetValue() + " ")
						}
						fmt.Fprintln(&out, s.GetCounter().GetValue())
					}
				}
			}
			return out.String()
		}
		require.Equal(t, "cancel 0\ncomplete 0\ncreate 2\nfind 0\npart 1\n", got("uploadfs_api_retries_total"))
		require.Equal(t, "cancel success 1\ncomplete success 1\ncreate success 4\ncreate transient 2\nfind success 0\npart success 4\npart transient 1\n",
			got("uploadfs_api_attempts_total"))
		require.Equal(t, "4\n", got("uploadfs_parts_total"))
		require.Equal(t, "1\n", got("uploadfs_completed_files_total"))
		require.Equal(t, m.SentBytes(), int64(3+2*6+3+2), "half of the part whose answer was lost")
		require.Equal(t, "14\n", got("uploadfs_resent_bytes_total"), "the lost answer, the changed part, the cancelled and the expired Upload")
		require.Len(t, b.(*calls).uploads, 1, "of the others nothing is remembered")
	})
}

// What is known of files is read at each collection, and the names are as Prometheus
// wants them.
func TestFiles(t *testing.T) {
	m := New()
	files, failed := Files{}, error(nil)
	m.Collect(func() (Files, error) { return files, failed })
	m.Closed(time.Second)
	m.Hook(HookComplete, nil)
	m.Hook(HookFailure, errors.New("exit status 1"))
	problems, err := testutil.GatherAndLint(m.registry)
	require.NoError(t, err)
	require.Empty(t, problems)

	files = Files{ByState: map[state.State]int{state.Failed: 2}, OldestPending: time.Now().Add(-time.Hour), Slots: 8, SlotsInUse: 3, DiskFree: 5}
	require.NoError(t, testutil.GatherAndCompare(m.registry, strings.NewReader(`
# HELP uploadfs_slots Large parts that may be sent at once (--parallel).
# TYPE uploadfs_slots gauge
uploadfs_slots 8
# HELP uploadfs_slots_in_use Large parts that are being sent.
# TYPE uploadfs_slots_in_use gauge
uploadfs_slots_in_use 3
`), "uploadfs_slots", "uploadfs_slots_in_use"))
	n, err := testutil.GatherAndCount(m.registry, "uploadfs_files")
	require.NoError(t, err)
	require.Equal(t, len(state.All), n, "each state, also where it has no file")
	families, err := m.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "uploadfs_oldest_pending_seconds" {
			require.GreaterOrEqual(t, f.GetMetric()[0].GetGauge().GetValue(), 3600.0)
		}
	}

	failed = errors.New("the journal is closed")
	_, err = m.registry.Gather()
	require.ErrorContains(t, err, "the journal is closed")
}
