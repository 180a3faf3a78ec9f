package mount

import (
	"path"
	"strings"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
)

// Entry is one mount of this process's mount namespace; the source of ours is the
// state directory.
type Entry = procfs.Mount

// topmost finds what is mounted on exactly this directory.
func topmost(list []Entry, point string) (Entry, bool) {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Point == point {
			return list[i], true
		}
	}
	return Entry{}, false
}

// holding finds the mount of ours that a resolved path lies in, and the path
// below that mount's root.
func holding(list []Entry, p string) (e Entry, below string, ok bool) {
	for _, m := range list {
		// A longer mount point is nearer to p, and of equal ones the later covers.
		if inside(p, m.Point) && len(m.Point) >= len(e.Point) {
			e = m
		}
	}
	if e.Type != fusefs.FSType {
		return Entry{}, "", false
	}
	below = path.Join(e.Root, strings.TrimPrefix(p, e.Point))
	return e, strings.TrimPrefix(below, "/"), true
}

// inside reports whether the clean absolute path p is dir or below it.
func inside(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}
