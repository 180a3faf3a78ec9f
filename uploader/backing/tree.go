// Package backing is the backing tree: the directory that holds every file of a
// mount, byte for byte. It resolves names beneath one directory descriptor and
// never through a symlink, and it knows files by inode and birth time, so that
// names may change under a file at any moment.
//
// Paths are relative to the tree, separated by slashes, without a leading one;
// "" is the tree itself. They may be longer than PATH_MAX, which bounds a single
// system call and not a tree.
package backing

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree is a backing tree. It may be used concurrently.
type Tree struct {
	dir  *os.File
	name string
}

// Open opens the backing tree at dir.
func Open(dir string) (*Tree, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Tree{dir: f, name: dir}, nil
}

// Close gives up the descriptor. No other call may follow.
func (t *Tree) Close() error { return t.dir.Close() }

// Name is the path that the tree was opened by, for messages.
func (t *Tree) Name() string { return t.name }

// Sync brings everything of the tree's filesystem to the disk, and returns when it
// is there.
func (t *Tree) Sync() error { return SyncFilesystem(t.dir) }

// Fd is the descriptor of the tree's directory; it belongs to the tree.
func (t *Tree) Fd() int { return int(t.dir.Fd()) }

// maxResolve is how much of a path one openat2 gets: below PATH_MAX (4096 with
// the terminating NUL), with room to end at a slash after a name of 255 bytes.
const maxResolve = 3800

// OpenAt opens rel with the open(2) flags given, beneath the tree. The caller
// closes the descriptor. A symlink anywhere in rel is ELOOP, except a last one
// under O_PATH|O_NOFOLLOW.
func (t *Tree) OpenAt(rel string, flags int, mode uint32) (int, error) {
	if rel == "" {
		rel = "."
	}
	at, last := t.Fd(), rel
	for len(last) > maxResolve {
		cut := strings.LastIndexByte(last[:maxResolve], '/')
		if cut <= 0 {
			return -1, unix.ENAMETOOLONG
		}
		next, err := openBeneath(at, last[:cut], oPath|unix.O_DIRECTORY, 0)
		if at != t.Fd() {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at, last = next, last[cut+1:]
	}
	fd, err := openBeneath(at, last, flags, mode)
	if at != t.Fd() {
		unix.Close(at)
	}
	return fd, err
}

// OpenDir opens the directory rel as a starting point for *at calls (O_PATH).
// The caller closes the descriptor.
func (t *Tree) OpenDir(rel string) (int, error) {
	return t.OpenAt(rel, oPath|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// OpenKey opens the file with this key for reading. The path is where it was
// last seen; when another file is there now, or none, the whole tree is searched,
// because a name is only a hint. The caller closes the file. fs.ErrNotExist: the
// file has no name in the tree any more.
func (t *Tree) OpenKey(key Key, hint string) (*os.File, error) {
	f, err := t.openIf(key, hint)
	if err == nil || !isAbsent(err) {
		return f, err
	}
	found, err := t.Find(key, hint)
	if err != nil {
		return nil, err
	}
	return t.openIf(key, found)
}

// openIf opens rel if it is the file with this key, and says fs.ErrNotExist if
// it is another.
func (t *Tree) openIf(key Key, rel string) (*os.File, error) {
	// O_NONBLOCK: what has this name now may be a FIFO.
	fd, err := t.OpenAt(rel, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: rel, Err: err}
	}
	info, err := StatFd(fd)
	if err == nil && info.Key != key {
		err = fs.ErrNotExist
	}
	if err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: rel, Err: err}
	}
	return os.NewFile(uintptr(fd), path.Base(rel)), nil
}

// isAbsent reports whether err says that a name leads to nothing, or to
// something else than a file that could be opened.
func isAbsent(err error) bool {
	pe, ok := err.(*fs.PathError)
	if !ok {
		return false
	}
	switch pe.Err {
	case fs.ErrNotExist, unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EISDIR, unix.ENXIO:
		return true
	}
	return false
}

// Stat describes rel without following a last symlink.
func (t *Tree) Stat(rel string) (Info, error) {
	if rel == "" {
		return StatFd(t.Fd())
	}
	dir, name := path.Split(rel)
	fd, err := t.OpenDir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return Info{}, err
	}
	defer unix.Close(fd)
	return StatAt(fd, name)
}

// Walk calls fn for every regular file of the tree, in no particular order; a
// file with several names is seen under each. fs.SkipAll from fn ends the walk
// without an error. What vanishes while the walk is under way is passed over.
func (t *Tree) Walk(fn func(rel string, info Info) error) error { return t.WalkBelow("", fn) }

// WalkBelow is Walk for the directory rel; one that is not there has no files.
func (t *Tree) WalkBelow(rel string, fn func(rel string, info Info) error) error {
	err := t.walk(rel, fn)
	if err == fs.SkipAll {
		return nil
	}
	return err
}

func (t *Tree) walk(rel string, fn func(string, Info) error) error {
	var below []string
	err := t.list(rel, func(sub string, info Info) error {
		if info.Mode&unix.S_IFMT == unix.S_IFDIR {
			below = append(below, sub)
			return nil
		}
		return fn(sub, info)
	})
	for i := 0; err == nil && i < len(below); i++ {
		err = t.walk(below[i], fn)
	}
	return err
}

// list calls fn for the regular files and the directories in the directory rel.
func (t *Tree) list(rel string, fn func(string, Info) error) error {
	fd, err := t.OpenAt(rel, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		if rel != "" && (err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP) {
			return nil
		}
		return &fs.PathError{Op: "walk", Path: rel, Err: err}
	}
	dir := os.NewFile(uintptr(fd), rel)
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if !e.IsDir() && !e.Type().IsRegular() {
				continue
			}
			info, err := StatAt(fd, e.Name())
			if err != nil {
				continue // gone since
			}
			sub := e.Name()
			if rel != "" {
				sub = rel + "/" + sub
			}
			if err := fn(sub, info); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF, errors.Is(err, unix.ENOENT): // the end, or removed under us
			return nil
		case err != nil:
			return &fs.PathError{Op: "walk", Path: rel, Err: err}
		}
	}
}

// Find returns a name of the file with this key: the hint if it still is one,
// else one in the hint's directory, else any. fs.ErrNotExist: it has none.
func (t *Tree) Find(key Key, hint string) (string, error) {
	if info, err := t.Stat(hint); err == nil && info.Key == key {
		return hint, nil
	}
	found := ""
	look := func(rel string, info Info) error {
		if info.Key == key {
			found = rel
			return fs.SkipAll
		}
		return nil
	}
	near := strings.TrimSuffix(path.Dir("/" + hint)[1:], "/")
	if err := t.list(near, look); err == nil || err == fs.SkipAll {
		if found != "" {
			return found, nil
		}
	}
	if err := t.Walk(look); err != nil {
		return "", err
	}
	if found == "" {
		return "", &fs.PathError{Op: "find", Path: hint, Err: fs.ErrNotExist}
	}
	return found, nil
}
