package uploader

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeldNames(t *testing.T) {
	p := NamePolicy{Hold: []string{"*.draft", "/inbox/*", "out/*.bin"}}
	for name, held := range map[string]bool{
		"a.txt": false, "train.jsonl": false, "sedan": false, "sedation.txt": false, "4914": false, ".profile": false,
		"a.tmp": true, "dir/a.part": true, "a.partial": true, "a.crdownload": true,
		".a.txt.Xk3f9Q": true, "dir/.a.txt.Xk3f9Q": true, ".a.txt.swp": true, ".a.swx": true,
		".goutputstream-AB12": true, "sedAbCdEf": true, "4913": true, ".fuse_hidden0001": true, ".nfs000001": true,
		"tmpx_3f9qz0": true, "tmpx_3f9qz": false, "tmpdata.txt": false,
		"img.jpg_exiftool_tmp": true, "a.pdf.~qpdf-temp#": true, "000001.dbtmp": true, "temp-123.rdb": true, "temp.rdb": false,
		"tmp_obj_x3Yz": true, "sub/tmp_pack_9fQa": true, ".tmp-17-pack-0a1b.idx": true, ".tmpl": false, "rdiff-backup.tmp.12": true, "rdiff-backup.txt": false,
		"index-tmp-17": true, "index-tmp-x": false, "CMakeCache.txt.tmp1a2b3": true, "a.tmp12": false,
		"global/pg_internal.init.812": true, "global/pg_internal.init": false,
		"index.lock": false, "a.orig42": false, "a.oAbCdEf": false,
		"db-journal": true, "db.sqlite-wal": true, "db.sqlite-shm": true, "journal": false,
		"a.draft": true, "deep/down/a.draft": true,
		"inbox/a": true, "inbox/sub/a": false, "x/inbox/a": false, "out/a.bin": true, "a.bin": false,
	} {
		require.Equal(t, held, p.classOf(name, false) == nameHeld, name)
		require.False(t, NamePolicy{Hold: p.Hold, NoHold: true}.classOf(name, false) == nameHeld, name)
	}
}

func TestATemporaryFileIsHeldUnderAnyName(t *testing.T) {
	p := NamePolicy{Exclude: []string{"*.log"}}
	for name, class := range map[string]nameClass{
		"a.txt": nameHeld, "d/XXMRJKS6": nameHeld, "a.tmp": nameHeld, "a.log": nameExcluded, "a~": nameExcluded,
	} {
		require.Equal(t, class, p.classOf(name, true), name)
	}
	require.Equal(t, nameFinal, NamePolicy{NoHold: true}.classOf("a.txt", true))
}

func TestWhichFilesAreTemporary(t *testing.T) {
	for _, c := range []struct {
		from Origin
		name string
		want bool
	}{
		{Temporary, "a.jsonl", true}, {Temporary, "index.lock", true},
		{ExclusiveReadWrite, "a.jsonl", false}, {ExclusiveReadWrite, "sub/index.lock", true}, {ExclusiveReadWrite, "a.oAbCdEf", false},
		{Exclusive, "a.jsonl", false}, {Exclusive, "sub/poetry.lock", false}, {Exclusive, "a.oAbCdEf", true}, {Exclusive, "a.o", false},
		{Found, "index.lock", false}, {Found, "a.jsonl", false},
	} {
		require.Equal(t, c.want, c.from.temporary(c.name), "%v %s", c.from, c.name)
	}
	p := NamePolicy{Hold: []string{"*.draft"}, NoHold: true}
	for name, stays := range map[string]bool{
		"a": false, "a.jsonl": false, "a~": true, "a.tmp": true, "a.lock": true, "a.oAbCdEf": true, "a.draft": true,
	} {
		require.Equal(t, stays, p.staysTemporary(name), "%s: the next mount may hold again", name)
	}
}

func TestExcludedNames(t *testing.T) {
	p := NamePolicy{Exclude: []string{"*.log", "cache/*"}}
	for name, excluded := range map[string]bool{
		"a.log": true, "x/y/a.log": true, "a.log.txt": false, "cache/a": true, "cache/b/a": false, "a": false,
	} {
		require.Equal(t, excluded, p.classOf(name, false) == nameExcluded, name)
	}
}

func TestScaffoldingIsExcluded(t *testing.T) {
	for name, excluded := range map[string]bool{
		".~lock.a.odt#": true, "#a.txt#": true, "a.iso.aria2": true, "a.aria2__temp": true, "d/a.txt~": true, ".a.txt.un~": true,
		".DS_Store": true, "d/._a.txt": true, "Thumbs.db": true, "d/desktop.ini": true, ".Trash-1000": true,
		".Trash-1000/files/a.txt": true, "d/.Trash-0/files/d/a.txt": true, ".Trash/a.txt": false, "a.Trash-1/b": false,
		"DS_Store": false, "_a": false, "thumbs.db.txt": false,
		"a#": false, "#a": false, "aria2": false, "~a": false, "a.un": false,
	} {
		require.Equal(t, excluded, NamePolicy{}.classOf(name, false) == nameExcluded, name)
		require.NotEqual(t, nameExcluded, NamePolicy{NoDefaultExcludes: true}.classOf(name, false), name)
	}
	require.Equal(t, nameHeld, NamePolicy{NoDefaultExcludes: true}.classOf("a.txt~", false))
	require.Equal(t, nameFinal, NamePolicy{NoDefaultExcludes: true}.classOf("a.iso.aria2", false))
}

func TestBadPatternsAreNamed(t *testing.T) {
	require.NoError(t, NamePolicy{Hold: []string{"*.a"}, Exclude: []string{"[a-c]?"}}.Validate())
	require.ErrorContains(t, NamePolicy{Hold: []string{"[a"}}.Validate(), `"[a"`)
	require.ErrorContains(t, NamePolicy{Exclude: []string{"ok", `a\`}}.Validate(), "bad pattern")
}
