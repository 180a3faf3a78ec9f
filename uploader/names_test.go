package uploader

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeldNames(t *testing.T) {
	p := NamePolicy{Hold: []string{"*.draft", "/inbox/*", "out/*.bin"}}
	for name, held := range map[string]bool{
		"a.txt": false, "train.jsonl": false, "sedan": false, "sedation.txt": false, "4914": false, ".profile": false,
		"a.tmp": true, "dir/a.part": true, "a.partial": true, "a.crdownload": true, "a.txt~": true,
		".a.txt.Xk3f9Q": true, "dir/.a.txt.Xk3f9Q": true, ".a.txt.swp": true, ".a.swx": true,
		".goutputstream-AB12": true, "sedAbCdEf": true, "4913": true, ".fuse_hidden0001": true, ".nfs000001": true,
		"tmpx_3f9qz0": true, "tmpx_3f9qz": false, "tmpdata.txt": false,
		"db-journal": true, "db.sqlite-wal": true, "db.sqlite-shm": true, "journal": false,
		"a.draft": true, "deep/down/a.draft": true,
		"inbox/a": true, "inbox/sub/a": false, "x/inbox/a": false, "out/a.bin": true, "a.bin": false,
	} {
		require.Equal(t, held, p.classOf(name) == nameHeld, name)
		require.False(t, NamePolicy{Hold: p.Hold, NoHold: true}.classOf(name) == nameHeld, name)
	}
}

func TestExcludedNames(t *testing.T) {
	p := NamePolicy{Exclude: []string{"*.log", "cache/*"}}
	for name, excluded := range map[string]bool{
		"a.log": true, "x/y/a.log": true, "a.log.txt": false, "cache/a": true, "cache/b/a": false, "a": false,
	} {
		require.Equal(t, excluded, p.classOf(name) == nameExcluded, name)
	}
}

func TestBadPatternsAreNamed(t *testing.T) {
	require.NoError(t, NamePolicy{Hold: []string{"*.a"}, Exclude: []string{"[a-c]?"}}.Validate())
	require.ErrorContains(t, NamePolicy{Hold: []string{"[a"}}.Validate(), `"[a"`)
	require.ErrorContains(t, NamePolicy{Exclude: []string{"ok", `a\`}}.Validate(), "bad pattern")
}
