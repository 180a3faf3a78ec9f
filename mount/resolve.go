package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxLinks is how many symlinks are followed, as in path_resolution(7).
const maxLinks = 40

// resolve makes a path absolute and free of symlinks without touching what is
// mounted on it: a mount point's own inode belongs to the mounted filesystem,
// and asking a dead or busy one for it may fail, or wait for ever. The last
// component need not exist.
func resolve(p string, mounts []Entry) (string, error) {
	p, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	for range maxLinks {
		if p == "/" {
			return p, nil
		}
		if _, ok := topmost(mounts, p); ok {
			return p, nil
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(p))
		if err != nil {
			return "", err
		}
		p = filepath.Join(dir, filepath.Base(p))
		if _, ok := topmost(mounts, p); ok {
			return p, nil
		}
		target, err := os.Readlink(p)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return p, nil // no symlink
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		p = filepath.Clean(target)
	}
	return "", &fs.PathError{Op: "resolve", Path: p, Err: syscall.ELOOP}
}

// resolveAbsent resolves as much of a path as exists; what does not, or cannot
// be looked at, is taken as it stands.
func resolveAbsent(p string) (string, error) {
	p, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	rest := ""
	for {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(real, rest), nil
		}
		if p == "/" {
			return filepath.Join(p, rest), nil
		}
		p, rest = filepath.Dir(p), filepath.Join(filepath.Base(p), rest)
	}
}
