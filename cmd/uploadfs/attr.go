package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"uploadfs/mount"
	"uploadfs/uploader"
)

// readStatus reads the status of a file from its extended attributes. Every user
// who may read the file may call it. All fields are of one moment.
func readStatus(path string) (*uploader.Status, error) {
	info, err := readAttr(path, uploader.AttrInfo)
	switch {
	case errors.Is(err, errNoAttr), errors.Is(err, unix.ENOTSUP):
		if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file, and only those are uploaded", mount.Printable(path))
		}
		return nil, fmt.Errorf("%s is not on an uploadfs mount", mount.Printable(path))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", mount.Printable(path), err)
	}
	st := new(uploader.Status)
	if err := json.Unmarshal(info, st); err != nil {
		return nil, fmt.Errorf("%s: the mount is of another version of uploadfs: %w", mount.Printable(path), err)
	}
	if len(st.PartIDs) == 0 && st.Acked > 0 {
		// The IDs did not fit into one value.
		for i := range st.Total {
			if id, err := readAttr(path, fmt.Sprint("part.", i)); err == nil {
				st.PartIDs = append(st.PartIDs, string(id))
			}
		}
	}
	return st, nil
}

// readAttr reads one of our extended attributes, named without the prefix.
func readAttr(path, name string) ([]byte, error) {
	var buf []byte
	for {
		n, err := unix.Getxattr(path, uploader.AttrPrefix+name, buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ERANGE):
			buf = nil // it has grown: ask for its size again
		case err != nil:
			return nil, err
		case n > len(buf): // only its size was asked for
			buf = make([]byte, n)
		default:
			return buf[:n], nil
		}
	}
}
