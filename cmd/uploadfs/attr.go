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

// maxAttr is the kernel's limit for the value of an extended attribute.
const maxAttr = 64 << 10

// readStatus reads how a file stands from its extended attributes, which anybody
// may who may read the file. All of it is of one moment.
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
		return nil, fmt.Errorf("%s: the mount speaks another version's language: %w", mount.Printable(path), err)
	}
	if len(st.PartIDs) == 0 && st.Acked > 0 {
		// So many that they did not fit into one value.
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
	buf := make([]byte, maxAttr)
	for {
		n, err := unix.Getxattr(path, uploader.AttrPrefix+name, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
