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

	NoDefaultExcludes bool // defaultExcludes are names like any other
}

// DefaultHoldFor is how long a held file waits for its final name.
const DefaultHoldFor = 30 * time.Second

// heldNames are the names of files that are not finished yet: what editors,
// rsync, browsers and the kernel's own clients call a file that they rename, or
// remove, when it is. rsync: .name.XXXXXX; vim: 4913 and .name.swp; GLib:
// .goutputstream-XXXXXX; GNU sed -i: sedXXXXXX; Python's tempfile: tmpxxxxxxxx;
// CMake: *.tmp?????; restic: *-tmp-N; leveldb and rocksdb: *.dbtmp; redis:
// temp-*.rdb and temp-rewriteaof-*.aof; PostgreSQL: pg_internal.init.PID; git and bup: tmp_obj_*, tmp_pack_*, .tmp-*
// and bup.tmp.*.
// SQLite's journals are here because it closes them only to remove them: sending
// one would make every transaction wait for the network, and leave a File that is
// of no use.
var heldNames = []string{
	".*.??????", "*.tmp", "*.tmp?????", "*.part", "*.partial", "*.crdownload", "*~", ".*.sw?",
	".goutputstream-*", "sed??????", "4913", ".fuse_hidden*", ".nfs*",
	"tmp" + strings.Repeat("[a-z0-9_]", 8), "*-journal", "*-wal", "*-shm",
	"*-tmp-[0-9]*", "*_exiftool_tmp", "*.~qpdf-temp#", "*.dbtmp", "temp-*.rdb", "tmp_obj_*", "tmp_pack_*", ".tmp-*",
	"rdiff-backup.tmp.*", "temp-rewriteaof-*.aof", "bup.tmp.*", "pg_internal.init.[0-9]*",
}

// lockNames are held only where an open with O_EXCL has made the file for reading and
// writing: git's locks, packs and lists. cp and tar open for writing only, and their
// poetry.lock is finished.
var lockNames = []string{"*.lock", "packed-refs.new", "refs_??????", "packs_??????", "tmp_*_??????"}

// patchNames are those of patch's output. An open with O_EXCL makes it, for writing only.
var patchNames = []string{"*.o??????"}

// defaultExcludes are scaffolding and backups that programs leave beside a file:
// LibreOffice's locks, emacs' autosaves, aria2's control files, editors' backups,
// vim's undo files, and what the Finder and Windows leave in a directory.
var defaultExcludes = []string{
	".~lock.*#", "#*#", "*.aria2", "*.aria2__temp", "*~", ".*.un~", ".DS_Store", "._*", "Thumbs.db", "desktop.ini", trash,
}

// trash is the directory that file managers move removed files into. Nothing below it
// is sent, either.
const trash = ".Trash-*"

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

// classOf says what the path of a file below the mount means. A temporary file is
// held under any name; see [Origin].
func (p NamePolicy) classOf(rel string, temporary bool) nameClass {
	switch {
	case matchAny(p.Exclude, rel), !p.NoDefaultExcludes && (matchAny(defaultExcludes, rel) || inTrash(rel)):
		return nameExcluded
	case !p.NoHold && (temporary || p.unfinished(rel)):
		return nameHeld
	}
	return nameFinal
}

// Excluded reports whether a file with this path is never sent.
func (p NamePolicy) Excluded(rel string) bool { return p.classOf(rel, false) == nameExcluded }

// unfinished reports whether the name alone says that the file is not finished.
func (p NamePolicy) unfinished(rel string) bool {
	return matchAny(heldNames, rel) || matchAny(p.Hold, rel)
}

// Origin says how an open has come by its file. A file that gets its final name
// later is told by its open better than by its name.
type Origin int

const (
	// Found is a file that was there, or that an open without O_EXCL has made.
	Found Origin = iota
	// Exclusive is a file that an open with O_EXCL has made for writing only.
	Exclusive
	// ExclusiveReadWrite is a file that an open with O_EXCL has made for reading and
	// writing.
	ExclusiveReadWrite
	// Temporary is a file that was made as mkstemp(3) makes it.
	Temporary
)

// temporary reports whether a new file of this origin is held under any name, until
// it is renamed.
func (o Origin) temporary(rel string) bool {
	switch o {
	case Temporary:
		return true
	case ExclusiveReadWrite:
		return matchAny(lockNames, rel)
	case Exclusive:
		return matchAny(patchNames, rel)
	}
	return false
}

// staysTemporary reports whether a temporary file is still one under its new name.
func (p NamePolicy) staysTemporary(rel string) bool {
	return p.unfinished(rel) || matchAny(lockNames, rel) || matchAny(patchNames, rel)
}

// inTrash reports whether a directory above is a trash.
func inTrash(rel string) bool {
	for dir := path.Dir(rel); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if matchAny([]string{trash}, dir) {
			return true
		}
	}
	return false
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
