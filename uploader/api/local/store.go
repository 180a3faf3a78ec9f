package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// The directories below Options.Dir.
const (
	uploadsDir = "uploads"
	filesDir   = "files"
	dataDir    = "data"
	tmpDir     = "tmp"
	damagedDir = "damaged"
	lockName   = "lock"
	recordExt  = ".json"
)

// Modes are given in full because a mount daemon runs with umask 0.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// uploadRecord is what is stored of an Upload.
type uploadRecord struct {
	ID           string       `json:"id"`
	Seq          int64        `json:"seq"` // order of creation, finer than any clock
	Filename     string       `json:"filename"`
	Purpose      string       `json:"purpose"`
	MimeType     string       `json:"mime_type"`
	Bytes        int64        `json:"bytes"`
	ExpiresAfter int64        `json:"expires_after,omitempty"` // seconds, of the File
	CreatedAt    time.Time    `json:"created_at"`
	ExpiresAt    time.Time    `json:"expires_at"`
	Status       string       `json:"status"`
	FileID       string       `json:"file_id,omitempty"`
	Parts        []partRecord `json:"parts,omitempty"` // as listed by complete
}

// fileRecord is what is stored of a File.
type fileRecord struct {
	ID            string       `json:"id"`
	Seq           int64        `json:"seq"` // as of Uploads
	Filename      string       `json:"filename"`
	Purpose       string       `json:"purpose"`
	MimeType      string       `json:"mime_type,omitempty"`
	Bytes         int64        `json:"bytes"`
	CreatedAt     time.Time    `json:"created_at"`
	ExpiresAt     time.Time    `json:"expires_at,omitzero"`
	Status        string       `json:"status"`
	StatusDetails string       `json:"status_details,omitempty"`
	Owner         string       `json:"owner"` // the directory below data: an Upload's ID, or the File's own
	Parts         []partRecord `json:"parts"` // in the order of the content
}

// partRecord names one part. Its bytes are in a file of its own; nothing else is stored of it.
type partRecord struct {
	ID    string `json:"id"`
	Bytes int64  `json:"bytes"`
}

// store is the directory. It has no state except the lock, and may be used concurrently. The Server decides which writes
// may happen when. Every name passed to it was made by newID or checked by validID.
type store struct {
	root *os.Root
	lock *os.File
}

// openStore creates the directories and takes the lock. The kernel releases the lock when the process dies.
func openStore(dir string) (_ *store, err error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	st := &store{root: root}
	defer func() {
		if err != nil {
			st.close()
		}
	}()
	if st.lock, err = root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, fileMode); err != nil {
		return nil, err
	}
	switch err := syscall.Flock(int(st.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, fmt.Errorf("%s is in use by another server; stop that one or choose another directory", dir)
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	for _, name := range []string{uploadsDir, filesDir, dataDir, tmpDir, damagedDir} {
		if err := root.Mkdir(name, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return st, nil
}

func (st *store) close() error {
	var err error
	if st.lock != nil {
		err = st.lock.Close()
	}
	return errors.Join(err, st.root.Close())
}

func recordPath(dir, id string) string   { return path.Join(dir, id+recordExt) }
func partPath(owner, part string) string { return path.Join(dataDir, owner, part) }

// putRecord writes a record atomically: after a crash of the process the old record or the new one can be read.
func (st *store) putRecord(dir, id string, record any) error {
	b, err := json.Marshal(record)
	if err != nil {
		return err
	}
	tmp := path.Join(tmpDir, newID("record_"))
	if err := st.root.WriteFile(tmp, b, fileMode); err != nil {
		return errors.Join(err, st.discard(tmp))
	}
	if err := st.root.Rename(tmp, recordPath(dir, id)); err != nil {
		return errors.Join(err, st.discard(tmp))
	}
	return nil
}

// dropRecord removes a record. A missing record is no error.
func (st *store) dropRecord(dir, id string) error { return st.discard(recordPath(dir, id)) }

func (st *store) discard(name string) error {
	if err := st.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// newTemp creates a file for a body that is being received.
func (st *store) newTemp() (f *os.File, name string, err error) {
	name = path.Join(tmpDir, newID(partPrefix))
	f, err = st.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	return f, name, err
}

// newOwner makes the directory for the parts of an Upload or File.
func (st *store) newOwner(owner string) error {
	err := st.root.Mkdir(path.Join(dataDir, owner), dirMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// dropOwner removes all parts of an Upload or File.
func (st *store) dropOwner(owner string) error { return st.root.RemoveAll(path.Join(dataDir, owner)) }

// keep moves a received file to its place; it fails if the owner's directory is gone.
func (st *store) keep(tmp, owner, part string) error {
	return st.root.Rename(tmp, partPath(owner, part))
}

func (st *store) openPart(owner, part string) (*os.File, error) {
	return st.root.Open(partPath(owner, part))
}

func (st *store) dropPart(owner, part string) error { return st.discard(partPath(owner, part)) }

// list returns the entries of a directory.
func (st *store) list(dir string) ([]os.DirEntry, error) {
	d, err := st.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

// readRecords calls each for every record of a directory. A record that cannot be read (after a power cut) is moved to
// damagedDir, and damaged is called.
func readRecords[R any](st *store, dir, prefix string, each func(id string, record *R), damaged func(name string, err error)) error {
	entries, err := st.list(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id, isRecord := strings.CutSuffix(entry.Name(), recordExt)
		if !isRecord || !validID(prefix, id) {
			continue // a foreign file
		}
		b, err := st.root.ReadFile(path.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		record := new(R)
		if err := json.Unmarshal(b, record); err != nil {
			if err := st.root.Rename(path.Join(dir, entry.Name()), path.Join(damagedDir, entry.Name())); err != nil {
				return err
			}
			damaged(entry.Name(), err)
			continue
		}
		each(id, record)
	}
	return nil
}
