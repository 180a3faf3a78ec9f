package uploader

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// NamePolicy says what a file's name means for its sending.
type NamePolicy struct {
	Hold    []string      // further globs of names to hold
	NoHold  bool          // hold nothing at all, not even heldNames
	HoldFor time.Duration // a held file is sent this long after its last close if it is not renamed
	Exclude []string      // globs of names that are never sent
}

// DefaultHoldFor is how long a held file waits for its final name.
const DefaultHoldFor = 30 * time.Second

// heldNames are the names of files that are not finished yet: what editors,
// rsync, browsers and the kernel's own clients call a file that they rename, or
// remove, when it is. rsync: .name.XXXXXX; vim: 4913 and .name.swp; GLib:
// .goutputstream-XXXXXX; GNU sed -i: sedXXXXXX; Python's tempfile: tmpxxxxxxxx.
// SQLite's journals are here because it closes them only to remove them: sending
// one would make every transaction wait for the network, and leave a File that is
// of no use.
var heldNames = []string{
	".*.??????", "*.tmp", "*.part", "*.partial", "*.crdownload", "*~", ".*.sw?",
	".goutputstream-*", "sed??????", "4913", ".fuse_hidden*", ".nfs*",
	"tmp" + strings.Repeat("[a-z0-9_]", 8), "*-journal", "*-wal", "*-shm",
}

// Validate reports the first glob that cannot be one.
func (p NamePolicy) Validate() error {
	for _, g := range append(append([]string(nil), p.Hold...), p.Exclude...) {
		if _, err := path.Match(g, ""); err != nil {
			return fmt.Errorf("bad pattern %q: use *, ? and [a-z] as a shell does", g)
		}
	}
	return nil
}

// nameClass is what a name means for the sending of its file.
type nameClass int

const (
	nameFinal    nameClass = iota // it is sent
	nameHeld                      // that of an unfinished file
	nameExcluded                  // it is never sent
)

// classOf says what the path of a file below the mount means.
func (p NamePolicy) classOf(rel string) nameClass {
	switch {
	case matchAny(p.Exclude, rel):
		return nameExcluded
	case !p.NoHold && (matchAny(heldNames, rel) || matchAny(p.Hold, rel)):
		return nameHeld
	}
	return nameFinal
}

// matchAny matches a glob with a slash against the whole path, any other
// against the base name.
func matchAny(globs []string, rel string) bool {
	base := path.Base(rel)
	for _, g := range globs {
		name := base
		if strings.Contains(g, "/") {
			name, g = rel, strings.TrimPrefix(g, "/")
		}
		if ok, err := path.Match(g, name); ok && err == nil {
			return true
		}
	}
	return false
}
