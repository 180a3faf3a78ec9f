package journal

import (
	"time"

	"uploadfs/uploader/api"
)

// Disown remembers the File of a file that is gone.
func (j *Journal) Disown(fileID string) error {
	return j.exec(`INSERT OR IGNORE INTO disowned VALUES (?, ?)`, fileID, time.Now().UnixNano())
}

// Completing records that Complete is called for the Upload, which was created
// then: from now on it may be a File.
func (j *Journal) Completing(uploadID string, spec api.Spec, created time.Time) error {
	return j.exec(`INSERT OR REPLACE INTO completing (upload_id, filename, purpose, declared, since) VALUES (?,?,?,?,?)`,
		uploadID, spec.Filename, spec.Purpose, spec.Bytes, created.UnixNano())
}

// Resolved records that it is known what became of the Upload.
func (j *Journal) Resolved(uploadID string) error {
	return j.change(step(WithResolved(uploadID)))
}

// Rivals is how many other Uploads, created since then, a File of this spec could
// have come from.
func (j *Journal) Rivals(uploadID string, spec api.Spec, since time.Time) (n int, err error) {
	err = j.read.QueryRow(`SELECT count(*) FROM completing WHERE upload_id <> ? AND filename=? AND purpose=? AND declared=? AND since >= ?`,
		uploadID, spec.Filename, spec.Purpose, spec.Bytes, since.UnixNano()).Scan(&n)
	if err != nil {
		return 0, failure(err)
	}
	return n, nil
}

// Claimed reports whether a File is already the result of a file of this mount,
// or was that of an earlier content, or of a file that is gone.
func (j *Journal) Claimed(fileID string) (bool, error) {
	var claimed bool
	err := j.read.QueryRow(`SELECT EXISTS (SELECT 1 FROM files WHERE file_id = ?1)
		OR EXISTS (SELECT 1 FROM superseded WHERE file_id = ?1)
		OR EXISTS (SELECT 1 FROM disowned WHERE file_id = ?1)`, fileID).Scan(&claimed)
	if err != nil {
		return false, failure(err)
	}
	return claimed, nil
}
