package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"uploadfs/mount"
	"uploadfs/uploader"
)

// leftOut counts the files of a tree that are not sent, by why.
type leftOut struct{ empty, special, excluded, named int }

func (n leftOut) String() string {
	var list []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{n.empty, "empty"},
		{n.special, "not regular"},
		{n.excluded, "excluded by name"},
		{n.named, "another name of a file"},
	} {
		if c.n > 0 {
			list = append(list, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(list, ", ")
}

// addTree makes the jobs of the files in a directory and below it, in the order of their
// names. It follows no symbolic links. What is left out there makes one warning.
func (l *jobList) addTree(dir string) {
	var out leftOut
	before := len(l.jobs) + len(l.errs)
	state, _ := os.Stat(l.config.stateDir) // it may not be there yet
	// The slash has it follow a link that the user has named.
	err := filepath.WalkDir(dir+string(filepath.Separator), func(path string, entry fs.DirEntry, err error) error {
		var fi fs.FileInfo
		if err == nil {
			fi, err = entry.Info()
		}
		rel, _ := filepath.Rel(dir, path) // path begins with dir
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			l.errs = append(l.errs, err) // the rest of the tree may have mistakes too
		case fi.IsDir() && state != nil && os.SameFile(fi, state):
			return fs.SkipDir // it changes while we send
		case fi.IsDir():
		case !fi.Mode().IsRegular():
			out.special++
		case fi.Size() == 0:
			out.empty++
		case uploader.NamePolicy{}.Excluded(rel):
			out.excluded++
		case l.nameOf(path, fi) != path:
			out.named++
		default:
			l.add(path, fi)
		}
		return nil
	})
	if err != nil {
		l.errs = append(l.errs, err)
	}
	switch text := out.String(); {
	case text != "":
		warn(l.cmd, "%s: left out: %s", mount.Printable(dir), text)
	case len(l.jobs)+len(l.errs) == before:
		warn(l.cmd, "%s has no files", mount.Printable(dir))
	}
}
