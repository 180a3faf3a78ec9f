package journal

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// journalOfVersion3 is a journal that the program of that version left when it was
// killed: rewritten.txt had been closed five times and was open again, once.jsonl was
// completed, rewritten2.txt waited for a server that was gone.
const journalOfVersion3 = "testdata/version3.db.gz"

func TestAJournalOfVersion3(t *testing.T) {
	f, err := os.Open(journalOfVersion3)
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	db, err := io.ReadAll(z)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, Name), db, 0o600))

	const boot = "27e8d112-697c-4900-83e0-2e92827f9928"
	rewritten := &Record{
		Key: backing.Key{Ino: 10569635, Birth: 1795956500390314884}, Path: "rewritten.txt",
		State: state.Writing, Since: time.Unix(0, 1795956501663931552), Open: true,
		Size: 11, Mtime: 1795956500498314884, Ctime: 1795956500498314884, Boot: boot,
		Superseded: Superseded{Count: 5, Last: []string{"file-f7h6ippfetgnkr6i5qixxh5ncp", "file-mewd4cowes5k7wizxitixhdg4x",
			"file-yzndrltfygrgdpiooqhcbuf5uj", "file-yq7olsbfc2yzqec2sfezb3zbbd", "file-6qhlyvyyqsz3mufovisvlz7z5w"}},
	}
	once := &Record{
		Key: backing.Key{Ino: 10569653, Birth: 1795956500510314884}, Path: "once.jsonl",
		State: state.Completed, Since: time.Unix(0, 1795956500521713108),
		Size: 5, Mtime: 1795956500516390076, Ctime: 1795956500516390076, Boot: boot,
		Spec:      api.Spec{Filename: "once.jsonl", Purpose: "user_data", MimeType: "text/jsonl", Bytes: 5},
		Upload:    api.Upload{ID: "upload_xxy5ekxku4yxv4vgzdujxb7l4c", ExpiresAt: time.Unix(0, 1795960100517529208)},
		CreatedAt: time.Unix(0, 1795956500000000000),
		FileID:    "file-yvbzvr725zoq4rikdj6zwdkxyb", MD5: "3246a85582036e262538c6bd3088e9df",
		Parts: []Part{{0, 5, 809621962, "part_ffwtdelymq5cz6qk2t5n4israc"}},
	}
	for range 2 { // the second time there is nothing left to do
		j := openTestJournal(t, dir)
		for _, want := range []*Record{rewritten, once} {
			got, err := j.Get(want.Key)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		for _, id := range append(rewritten.Superseded.Last, once.FileID) {
			claimed, err := j.Claimed(id)
			require.NoError(t, err)
			require.True(t, claimed, id)
		}
		counts, err := j.Counts()
		require.NoError(t, err)
		require.Equal(t, map[state.State]int{state.Writing: 1, state.Completed: 1, state.Empty: 1, state.Held: 1, state.Retrying: 1}, counts)
		require.NoError(t, j.Close())
	}

	// It goes on.
	j := openTestJournal(t, dir)
	defer func() { require.NoError(t, j.Close()) }()
	rewritten.Supersede("file-next")
	require.NoError(t, j.Put(rewritten))
	got, err := j.Get(rewritten.Key)
	require.NoError(t, err)
	require.Equal(t, rewritten, got)
	require.Equal(t, 6, got.Superseded.Count)
}

func TestSupersededFiles(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	defer func() { require.NoError(t, j.Close()) }()
	r := &Record{Key: backing.Key{Ino: 1}, State: state.Writing}
	other := &Record{Key: backing.Key{Ino: 1, Birth: 1}, State: state.Writing}
	other.Supersede("of-another-file")
	require.NoError(t, j.Put(other))
	var all []string
	add := func(n int) {
		for range n {
			all = append(all, fmt.Sprint("file-", len(all)))
			r.Supersede(all[len(all)-1])
		}
		require.NoError(t, j.Put(r))
	}
	for _, n := range []int{0, 1, LastSuperseded - 2, 1, 1, 3*LastSuperseded + 1, 1} {
		before := *r
		add(n)
		require.Equal(t, len(all)-n, before.Superseded.Count)
		require.Equal(t, append([]string{}, all[len(all)-n-len(before.Superseded.Last):len(all)-n]...), append([]string{}, before.Superseded.Last...), "a copy stays what it was")

		got, err := j.Get(r.Key)
		require.NoError(t, err)
		require.Equal(t, len(all), got.Superseded.Count)
		require.Equal(t, len(all), r.Superseded.Count)
		last := all[max(0, len(all)-LastSuperseded):]
		require.Equal(t, append([]string{}, last...), append([]string{}, got.Superseded.Last...))
		for from := range len(all) + 1 {
			list, err := j.Superseded(r.Key, from, 3)
			require.NoError(t, err)
			require.Equal(t, append([]string{}, all[from:min(from+3, len(all))]...), append([]string{}, list...))
		}
	}
	require.LessOrEqual(t, len(r.Superseded.Last), 3*LastSuperseded+1)
	add(1)
	short := withoutLists(r)
	short.Supersede("file-new")
	require.NoError(t, j.LoadLists(short))
	require.Equal(t, append(all[len(all)-LastSuperseded:len(all):len(all)], "file-new"), short.Superseded.Last)
	require.Equal(t, len(all)+1, short.Superseded.Count)
	require.Len(t, r.Superseded.Last, LastSuperseded, "what the journal has is let go of")

	require.NoError(t, j.Delete(r.Key))
	list, err := j.Superseded(r.Key, 0, len(all))
	require.NoError(t, err)
	require.Empty(t, list)
	for _, id := range all {
		claimed, err := j.Claimed(id)
		require.NoError(t, err)
		require.True(t, claimed, "of a file that is gone")
	}
	list, err = j.Superseded(other.Key, 0, 9)
	require.NoError(t, err)
	require.Equal(t, []string{"of-another-file"}, list)
}
