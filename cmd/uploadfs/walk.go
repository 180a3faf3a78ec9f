package main

import (
	"io/fs"
	"os"
	"path/filepath"

	"uploadfs/mount"
)

// isDir reports whether a path names a directory, and not a link to one.
func isDir(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.IsDir()
}

// walkFiles calls do for each regular file in a directory of a mount and below it.
func walkFiles(dir string, do func(path string) error) error {
	if _, _, err := mount.FindFile(dir); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) && path != dir {
			return nil // removed meanwhile
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if err := do(path); !os.IsNotExist(err) {
			return err
		}
		return nil
	})
}
