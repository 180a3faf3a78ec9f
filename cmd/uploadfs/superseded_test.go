//go:build linux

package main

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/journal"
)

// TestInfoOfThousandsOfFiles: however many Files were made of a file, info and wait
// answer, and all of them can be listed.
func TestInfoOfThousandsOfFiles(t *testing.T) {
	const added = 5000 // their IDs are longer than any attribute may be
	b := newBox(t, users()[0])
	file := filepath.Join(b.point, "f")
	b.mount("--embedded")
	b.shOK(`echo 1 > "$M/f"; echo 2 >> "$M/f"`)
	first := strings.TrimSpace(b.ok("info", "--superseded", file))
	b.ok("unmount", b.point)

	db, err := sql.Open("sqlite", filepath.Join(b.state, journal.Name))
	require.NoError(t, err)
	_, err = db.Exec(`WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < ?)
		INSERT INTO superseded SELECT ino, birth, i, printf('file-made-by-the-test-%06d', i) FROM superseded, n`, added)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	b.mount("--embedded")
	second := b.info("f").FileID
	b.shOK(`echo 3 >> "$M/f"`)
	b.ok("wait", file)
	want := []string{first}
	for i := range added {
		want = append(want, fmt.Sprintf("file-made-by-the-test-%06d", i+1))
	}
	want = append(want, second)
	require.Equal(b, strings.Join(want, "\n")+"\n", b.ok("info", "--superseded", file))
	st := b.info("f")
	require.Equal(b, len(want), st.SupersededCount)
	require.Equal(b, want[len(want)-journal.LastSuperseded:], st.Superseded)
	require.Regexp(b, `(?m)^  files made +5003$`, b.ok("info", file))
	require.Regexp(b, `(?m)^  earlier files  file-made.*, `+second+`, and 4994 before: uploadfs info --superseded lists all$`, b.ok("info", file))
	require.Equal(b, b.shOK(`getfattr --only-values -n user.uploadfs.superseded.5001 "$M/f"`), second, "from that one on")
	require.NotContains(b, b.shOK(`getfattr -d "$M/f"`), "superseded", "it is not listed")
	b.shOK(`! getfattr -n user.uploadfs.superseded.5002 "$M/f"`)
	b.shOK(`: > "$M/none"`)
	require.Empty(b, b.ok("info", "--superseded", filepath.Join(b.point, "none")))
	b.refused(2, "superseded", "info", "--json", "--superseded", file)
	b.ok("unmount", b.point)
}
