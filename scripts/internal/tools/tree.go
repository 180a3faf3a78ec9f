//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// entry is what there is under one name.
type entry struct {
	Path  string // below the directory looked at
	Mode  fs.FileMode
	Size  int64
	Inode uint64
	Sum   string            // of a file's content, SHA-256 in hex
	Link  string            // of a symbolic link
	Attrs map[string]string // uploadfs's own, without the prefix
}

// filesAttrs are the attributes that tell what became of a file.
var filesAttrs = []string{"state", "error", "file_id", "filename", "mime_type"}

// tree is what is below a directory.
func tree(dir string) ([]entry, error) {
	var list []entry
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{Mode: fi.Mode(), Inode: fi.Sys().(*syscall.Stat_t).Ino, Attrs: map[string]string{}}
		if e.Path, err = filepath.Rel(dir, name); err != nil {
			return err
		}
		switch {
		case e.Mode&fs.ModeSymlink != 0:
			e.Link, err = os.Readlink(name)
		case e.Mode.IsRegular():
			e.Size = fi.Size()
			if e.Sum, err = sumOf(name); err != nil {
				return err
			}
			value := make([]byte, 64<<10)
			for _, key := range filesAttrs {
				if n, err := unix.Lgetxattr(name, "user.uploadfs."+key, value); err == nil {
					e.Attrs[key] = string(value[:n])
				}
			}
		}
		list = append(list, e)
		return err
	})
	return list, err
}

func sumOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return sum(f)
}

func sum(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// printTree prints the entries, for a caller that may not look into this user's mount.
func printTree(dir string, out io.Writer) error {
	list, err := tree(dir)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(list)
}
