// Package oldmount makes the state directory of a mount that has been used for long:
// many small files, and a journal that knows them. Tests and measurements mount it.
package oldmount

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// Size is how many bytes each file has.
const Size = 16

// perDir is how many files there are in a directory.
const perDir = 1000

// Tree is the name of the backing tree in the state directory.
const Tree = "tree"

// Path is where file i of the tree is.
func Path(i int) string { return fmt.Sprintf("d%04d/f%07d.txt", i/perDir, i) }

// Make makes n files in dir, and records of them in the state given, as written
// under that boot of the kernel. The state "" leaves the files without records.
func Make(dir string, n int, s state.State, boot string) (err error) {
	j, err := journal.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() {
		if closed := j.Close(); err == nil {
			err = closed
		}
	}()
	if err := os.MkdirAll(filepath.Join(dir, Tree), 0o700); err != nil {
		return err
	}
	tree, err := backing.Open(filepath.Join(dir, Tree))
	if err != nil {
		return err
	}
	defer tree.Close()
	var page []*journal.Record
	for i := range n {
		name := filepath.Join(dir, Tree, Path(i))
		if i%perDir == 0 {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(name, fmt.Appendf(nil, "%0*d", Size, i), 0o644); err != nil {
			return err
		}
		if s == "" {
			continue
		}
		info, err := tree.Stat(Path(i))
		if err != nil {
			return err
		}
		page = append(page, record(i, info, s, boot))
		if len(page) == perDir || i == n-1 {
			if err := j.PutAll(page); err != nil {
				return err
			}
			page = page[:0]
		}
	}
	return nil
}

func record(i int, info backing.Info, s state.State, boot string) *journal.Record {
	now := time.Now()
	r := &journal.Record{Key: info.Key, Path: Path(i), State: s, Since: now,
		Size: info.Size, Mtime: info.Mtime, Ctime: info.Ctime, Boot: boot, Durable: info.Stamp()}
	switch s {
	case state.Interrupted:
		r.Err, r.Kind = "its writer did not close it; `uploadfs retry` sends it as it is", api.Interrupted
	case state.Completed:
		id := fmt.Sprintf("%024x", i)
		r.Spec = api.Spec{Filename: filepath.Base(r.Path), Bytes: Size, Purpose: "user_data", MimeType: "text/plain"}
		r.Upload, r.CreatedAt = api.Upload{ID: "upload_" + id, ExpiresAt: now.Add(time.Hour)}, now
		r.FileID, r.MD5 = "file-"+id, "d41d8cd98f00b204e9800998ecf8427e"
		r.Parts = []journal.Part{{Len: Size, ID: "part_" + id}}
	}
	return r
}
