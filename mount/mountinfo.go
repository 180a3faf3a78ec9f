package mount

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"uploadfs/fusefs"
)

// Entry is one line of /proc/self/mountinfo.
type Entry struct {
	Root   string // what of the filesystem is mounted: "/", or the source of a bind mount
	Point  string // where
	Type   string // such as ext4 or fuse.uploadfs
	Source string // of ours: the state directory
}

// Entries lists the mounts of this process's namespace in the kernel's order: of
// two on the same directory, the later one covers the earlier.
func Entries() ([]Entry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseEntries(f)
}

// parseEntries reads the format of proc_pid_mountinfo(5): six fixed fields, any
// number of optional ones, "-", then type, source and options.
func parseEntries(r io.Reader) ([]Entry, error) {
	var list []Entry
	lines := bufio.NewScanner(r)
	// A line holds two paths, each up to PATH_MAX and four times that when escaped.
	lines.Buffer(nil, 256<<10)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fixed, rest := strings.Split(before, " "), strings.Split(after, " ")
		if !ok || len(fixed) < 6 || len(rest) < 2 {
			return nil, fmt.Errorf("mountinfo: cannot read line %q", lines.Text())
		}
		list = append(list, Entry{
			Root:   unescapeOctal(fixed[3]),
			Point:  unescapeOctal(fixed[4]),
			Type:   rest[0],
			Source: unescapeOctal(rest[1]),
		})
	}
	return list, lines.Err()
}

// unescapeOctal undoes the kernel's \NNN for space, tab, newline, # and backslash.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	digit := func(i int) (byte, bool) { return s[i] - '0', s[i] >= '0' && s[i] <= '7' }
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			x, okx := digit(i + 1)
			y, oky := digit(i + 2)
			z, okz := digit(i + 3)
			if okx && oky && okz {
				b.WriteByte(x<<6 | y<<3 | z)
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

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
