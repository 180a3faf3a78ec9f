//go:build linux

package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

func TestSameTree(t *testing.T) {
	native := []entry{{Path: "f", Mode: 0o644, Sum: "s", Size: 1}, {Path: "v", Mode: 0o644, Sum: "s"}}
	for name, c := range map[string]struct {
		mounted []entry
		want    string
	}{
		"the same":           {[]entry{{Path: "f", Mode: 0o644, Sum: "s"}, {Path: "v", Sum: "other"}}, ""},
		"missing":            {nil, "f is missing"},
		"another content":    {[]entry{{Path: "f", Mode: 0o644, Sum: "x"}}, "another content"},
		"another mode":       {[]entry{{Path: "f", Mode: 0o600, Sum: "s"}}, "has mode"},
		"a link":             {[]entry{{Path: "f", Mode: 0o644, Sum: "s", Link: "x"}}, "leads to x"},
		"one more":           {[]entry{{Path: "f", Mode: 0o644, Sum: "s"}, {Path: "g"}}, "g is not there natively"},
		"one more of varies": {[]entry{{Path: "f", Mode: 0o644, Sum: "s"}, {Path: "v2"}}, ""},
	} {
		wrong := (&toolCase{varies: []string{"v*"}}).sameTree(native, c.mounted)
		if c.want == "" {
			require.Empty(t, wrong, name)
		} else {
			require.Len(t, wrong, 1, name)
			require.Contains(t, wrong[0], c.want, name)
		}
	}
}

func TestSameFiles(t *testing.T) {
	good := func(change func(e *entry)) []entry {
		e := entry{Path: "d/f.txt", Inode: 1, Size: 1, Sum: "s", Mode: 0o644, Attrs: map[string]string{
			"state": "completed", "file_id": "1", "filename": "f.txt", "mime_type": "text/plain",
		}}
		change(&e)
		return []entry{e}
	}
	keep := func(*entry) {}
	file := local.FileInfo{ID: "1", Filename: "f.txt", MimeType: "text/plain"}
	renamed := local.FileInfo{ID: "1", Filename: "f.tmp", MimeType: "text/plain"}
	for name, c := range map[string]struct {
		c       toolCase
		mounted []entry
		made    []local.FileInfo
		want    string
	}{
		"good":                       {mounted: good(keep), made: []local.FileInfo{file}},
		"made before":                {mounted: good(keep)},
		"empty":                      {mounted: good(func(e *entry) { e.Size, e.Attrs = 0, map[string]string{"state": "empty"} })},
		"failed":                     {mounted: good(func(e *entry) { e.Attrs["state"], e.Attrs["error"] = "failed", "refused" }), want: "is failed: refused"},
		"excluded":                   {mounted: good(func(e *entry) { e.Attrs["state"] = "excluded" }), want: "is excluded"},
		"excluded, as the case says": {c: toolCase{excluded: true}, mounted: good(func(e *entry) { e.Attrs["state"] = "excluded" })},
		"no File":                    {mounted: good(func(e *entry) { e.Attrs["file_id"] = "2" }), want: "no File"},
		"another content":            {mounted: good(func(e *entry) { e.Sum = "x" }), made: []local.FileInfo{file}, want: "another content than its File"},
		"another attribute":          {mounted: good(func(e *entry) { e.Attrs["filename"] = "x" }), made: []local.FileInfo{file}, want: "its attribute says"},
		"another mime type":          {mounted: good(func(e *entry) { e.Attrs["mime_type"] = "x/y" }), made: []local.FileInfo{file}, want: "has mime type text/plain"},
		"one File more":              {mounted: good(keep), made: []local.FileInfo{file, {ID: "2", Filename: "f.txt"}}, want: "2 Files, not 1"},
		"one File less":              {c: toolCase{files: [2]int{2, 3}}, mounted: good(keep), made: []local.FileInfo{file}, want: "1 Files, not 2 to 3"},
		"a temporary name":           {mounted: good(func(e *entry) { e.Attrs["filename"] = "f.tmp" }), made: []local.FileInfo{renamed}, want: "f.tmp"},
		"a name that may be": {c: toolCase{also: []string{"*.tmp"}}, mounted: good(func(e *entry) { e.Attrs["filename"] = "f.tmp" }),
			made: []local.FileInfo{renamed}},
	} {
		wrong := c.c.sameFiles(c.mounted, c.made, func(id string) (local.FileInfo, string, error) {
			for _, f := range append(c.made, file) {
				if f.ID == id {
					return f, "s", nil
				}
			}
			return local.FileInfo{}, "", fmt.Errorf("no File %s", id)
		})
		if c.want == "" {
			require.Empty(t, wrong, name)
		} else {
			require.NotEmpty(t, wrong, name)
			require.Contains(t, wrong[0], c.want, name)
		}
	}
}
