package uploader

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/state"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestWhatAttributesTake(t *testing.T) {
	for name, values := range map[string]struct{ good, bad []string }{
		AttrPurpose:  {api.Purposes, []string{"", "Batch", "fine tune"}},
		AttrMimeType: {[]string{"text/jsonl", "text/plain; charset=utf-8"}, []string{"", "text", "/", "a b/c"}},
		AttrExpires:  {[]string{"3600", "2592000"}, []string{"", "3599", "2592001", "1h", "-1", "99999999999999999999"}},
		AttrSizeHint: {[]string{"1", "9000000000"}, []string{"", "0", "-1", "1M"}},
		"state":      {nil, []string{"completed"}},
		"nonsense":   {nil, []string{"x"}},
	} {
		for _, v := range values.good {
			require.NoError(t, ValidateAttr(name, v), "%s=%s", name, v)
		}
		for _, v := range values.bad {
			require.Error(t, ValidateAttr(name, v), "%s=%s", name, v)
		}
	}
	for _, name := range []string{AttrPurpose, AttrMimeType, AttrExpires} {
		require.True(t, WritableAttr(name, false))
		require.True(t, WritableAttr(name, true))
	}
	require.True(t, WritableAttr(AttrSizeHint, false))
	require.False(t, WritableAttr(AttrSizeHint, true))
	require.False(t, WritableAttr("state", false))
}

func TestTypesByExtension(t *testing.T) {
	for name, want := range map[string]string{
		"a.jsonl": "text/jsonl", "A.JSONL": "text/jsonl", "a.pdf": "application/pdf", "dir.txt/a": "application/octet-stream",
		"a": "application/octet-stream", "a.unheard-of": "application/octet-stream", ".jsonl": "text/jsonl",
	} {
		require.Equal(t, want, mimeType(name), name)
	}
}

func TestAttributesAreInherited(t *testing.T) {
	u := openTest(t, Options{Purpose: "batch"})
	require.NoError(t, os.MkdirAll(u.path("a/b"), 0o755))
	u.write(t, "a/b/f.jsonl", "x")
	u.write(t, "g", "x")
	set := func(rel, name, value string) {
		require.NoError(t, unix.Setxattr(u.path(rel), AttrPrefix+name, []byte(value), 0))
	}
	st := &Status{State: state.Empty}
	get := func(rel, name string) string {
		value, _ := u.Attr(st, rel, name)
		return value
	}

	require.Equal(t, "batch", get("a/b/f.jsonl", AttrPurpose))
	require.Equal(t, "text/jsonl", get("a/b/f.jsonl", AttrMimeType))
	require.Equal(t, "", get("a/b/f.jsonl", AttrExpires))

	set("", AttrPurpose, "vision")
	set("a", AttrPurpose, "evals")
	set("a", AttrMimeType, "text/x-a")
	set("a", AttrExpires, "7200")
	require.Equal(t, "vision", get("g", AttrPurpose))
	require.Equal(t, "evals", get("a/b/f.jsonl", AttrPurpose))
	require.Equal(t, api.Spec{Filename: "f.jsonl", Purpose: "evals", MimeType: "text/x-a", Bytes: 7, Expires: 2 * time.Hour}, u.spec("a/b/f.jsonl", 7))

	set("a/b/f.jsonl", AttrPurpose, "assistants")
	require.Equal(t, "assistants", get("a/b/f.jsonl", AttrPurpose))
	require.NoError(t, unix.Removexattr(u.path("a/b/f.jsonl"), AttrPrefix+AttrPurpose))
	require.Equal(t, "evals", get("a/b/f.jsonl", AttrPurpose))

	set("a/b/f.jsonl", AttrSizeHint, "12")
	require.Equal(t, "12", get("a/b/f.jsonl", AttrSizeHint))
	require.Equal(t, "", get("g", AttrSizeHint))
	require.Equal(t, []string{"state", AttrPurpose, AttrMimeType, AttrExpires, AttrSizeHint}, u.ListAttrs(st, "a/b/f.jsonl"))

	// A directory shows what holds below it, and has nothing of a file's.
	require.Equal(t, []string{AttrPurpose, AttrMimeType, AttrExpires}, u.ListAttrs(nil, "a"))
	require.Equal(t, []string{AttrPurpose}, u.ListAttrs(nil, ""))
	_, ok := u.Attr(nil, "a", "state")
	require.False(t, ok)
}

func TestAttributesOfAStatus(t *testing.T) {
	u := openTest(t, Options{})
	u.write(t, "f", "x")
	st := &Status{State: state.Retrying, UploadID: "upload_1", PartIDs: []string{"p0", "p2"}, parts: []string{"p0", "", "p2"},
		Acked: 2, Total: 3, BytesSent: 20, Error: "503"}
	for name, want := range map[string]string{
		"state": "retrying", "upload_id": "upload_1", "part_ids": "p0,p2", "progress": "2/3", "bytes_sent": "20", "error": "503",
		"part.0": "p0", "part.2": "p2", AttrPurpose: "user_data", AttrMimeType: "application/octet-stream",
	} {
		value, ok := u.Attr(st, "f", name)
		require.True(t, ok, name)
		require.Equal(t, want, value, name)
	}
	for _, name := range []string{"part.1", "part.3", "part.-1", "part.00", "part.+0", "part.", "part.x", "file_id", "md5", "nonsense", AttrExpires} {
		value, ok := u.Attr(st, "f", name)
		require.False(t, ok, name)
		require.Equal(t, "", value, name)
	}
	require.Equal(t, []string{"state", "upload_id", "part_ids", "progress", "bytes_sent", "bytes_acknowledged", "rate", "error", AttrPurpose, AttrMimeType}, u.ListAttrs(st, "f"))

	value, ok := u.Attr(st, "f", AttrInfo)
	require.True(t, ok)
	var got Status
	require.NoError(t, json.Unmarshal([]byte(value), &got))
	require.Equal(t, []string{"p0", "p2"}, got.PartIDs)
}

func TestFilenameIsValidUTF8(t *testing.T) {
	u := openTest(t, Options{})
	require.Equal(t, "a\uFFFDb.txt", u.spec("dir\xff/a\xffb.txt", 1).Filename)
	require.Equal(t, filepath.Base("dir/a.txt"), u.spec("dir/a.txt", 1).Filename)
}
