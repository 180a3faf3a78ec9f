//go:build linux

package main

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"uploadfs/uploader/api/local"
)

// sameTree compares what a case has left in a mount with what it has left natively.
func (c *toolCase) sameTree(native, mounted []entry) (wrong []string) {
	byPath := map[string]entry{}
	for _, e := range mounted {
		if !matches(c.varies, e.Path) {
			byPath[e.Path] = e
		}
	}
	for _, want := range native {
		if matches(c.varies, want.Path) {
			continue
		}
		got, ok := byPath[want.Path]
		delete(byPath, want.Path)
		switch {
		case !ok:
			wrong = append(wrong, want.Path+" is missing")
		case got.Mode != want.Mode:
			wrong = append(wrong, fmt.Sprintf("%s has mode %v, and natively %v", want.Path, got.Mode, want.Mode))
		case got.Link != want.Link:
			wrong = append(wrong, fmt.Sprintf("%s leads to %s, and natively to %s", want.Path, got.Link, want.Link))
		case got.Sum != want.Sum:
			wrong = append(wrong, fmt.Sprintf("%s has another content than natively: %d bytes, and natively %d", want.Path, got.Size, want.Size))
		}
	}
	for name := range byPath {
		wrong = append(wrong, name+" is not there natively")
	}
	return wrong
}

// sameFiles compares the Files at the API with what is in the mount. made are those that
// the case has made; content gives the sum of each File's content by its ID.
func (c *toolCase) sameFiles(mounted []entry, made []local.FileInfo, file func(id string) (local.FileInfo, string, error)) (wrong []string) {
	names := map[uint64][]string{}
	final := map[string]bool{}
	for _, e := range mounted {
		names[e.Inode] = append(names[e.Inode], path.Base(e.Path))
		final[path.Base(e.Path)] = true
	}
	current := map[string]bool{} // IDs
	for _, e := range mounted {
		switch state := e.Attrs["state"]; {
		case e.Mode&fs.ModeType != 0:
		case e.Size == 0 && (state == "empty" || state == "excluded"), state == "excluded" && c.excluded:
		case state != "completed":
			wrong = append(wrong, fmt.Sprintf("%s is %s: %s", e.Path, state, e.Attrs["error"]))
		default:
			current[e.Attrs["file_id"]] = true
			f, sum, err := file(e.Attrs["file_id"])
			switch {
			case err != nil:
				wrong = append(wrong, fmt.Sprintf("%s: %v", e.Path, err))
				continue
			case sum != e.Sum:
				wrong = append(wrong, e.Path+" has another content than its File")
			case f.Filename != e.Attrs["filename"]:
				wrong = append(wrong, fmt.Sprintf("%s was sent as %q, and its attribute says %q", e.Path, f.Filename, e.Attrs["filename"]))
			}
			named := slices.Contains(names[e.Inode], f.Filename)
			if !named && !matches(c.also, f.Filename) {
				wrong = append(wrong, fmt.Sprintf("the File of %s has the name %s", e.Path, f.Filename))
			}
			if f.Filename == path.Base(e.Path) && !matches(c.mime, e.Path) && f.MimeType != e.Attrs["mime_type"] {
				wrong = append(wrong, fmt.Sprintf("the File of %s has mime type %s, and its attribute says %s", e.Path, f.MimeType, e.Attrs["mime_type"]))
			}
		}
	}
	want := c.files
	if want == [2]int{} {
		for _, f := range made {
			if current[f.ID] {
				want[0]++
			}
		}
		want[1] = want[0]
	}
	list := make([]string, len(made))
	for i, f := range made {
		list[i] = f.Filename
		if !final[f.Filename] && !matches(c.also, f.Filename) {
			wrong = append(wrong, "there is a File with the name "+f.Filename)
		}
	}
	if len(made) < want[0] || len(made) > want[1] {
		slices.Sort(list)
		wrong = append(wrong, fmt.Sprintf("it made %d Files, not %s: %s", len(made), span(want), strings.Join(list, " ")))
	}
	return wrong
}
