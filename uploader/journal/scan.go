package journal

import (
	"strings"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// A journal may have a million records. What looks at all of them reads them in
// pages, in the order of their keys, and holds one page in memory.

// After returns up to n records that follow the key, in the order of the keys and
// without parts.
func (j *Journal) After(key backing.Key, n int) ([]*Record, error) {
	return j.query(`WHERE (ino, birth) > (?, ?) ORDER BY ino, birth LIMIT ?`, int64(key.Ino), key.Birth, n)
}

// AfterIn is After for the records in one state.
func (j *Journal) AfterIn(s state.State, key backing.Key, n int) ([]*Record, error) {
	return j.query(`WHERE state = ? AND (ino, birth) > (?, ?) ORDER BY ino, birth LIMIT ?`, string(s), int64(key.Ino), key.Birth, n)
}

// First is the key that all others follow.
var First = backing.Key{Ino: 1 << 63, Birth: -1 << 63} // SQLite's integers have a sign

// AtPath returns the keys of the records that have this path.
func (j *Journal) AtPath(path string) ([]backing.Key, error) {
	return j.keys(`SELECT ino, birth FROM files WHERE path = ?`, path)
}

// WithNumbers returns the keys of the records that have the inode number of one of
// the keys.
func (j *Journal) WithNumbers(keys []backing.Key) ([]backing.Key, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	args := make([]any, len(keys))
	for i, k := range keys {
		args[i] = int64(k.Ino)
	}
	return j.keys(`SELECT ino, birth FROM files WHERE ino IN (?`+strings.Repeat(",?", len(keys)-1)+`)`, args...)
}

func (j *Journal) keys(query string, args ...any) ([]backing.Key, error) {
	rows, err := j.read.Query(query, args...)
	if err != nil {
		return nil, failure(err)
	}
	defer rows.Close()
	var keys []backing.Key
	for rows.Next() {
		var ino, birth int64
		if err := rows.Scan(&ino, &birth); err != nil {
			return nil, failure(err)
		}
		keys = append(keys, backing.Key{Ino: uint64(ino), Birth: birth})
	}
	if err := rows.Err(); err != nil {
		return nil, failure(err)
	}
	return keys, nil
}

// Count is how many records there are.
func (j *Journal) Count() (n int, err error) {
	if err = j.read.QueryRow(`SELECT count(*) FROM files`).Scan(&n); err != nil {
		return 0, failure(err)
	}
	return n, nil
}

// PutAll writes new records with their parts, all or none of them.
func (j *Journal) PutAll(records []*Record) error {
	if len(records) == 0 {
		return nil
	}
	var steps []step
	for _, r := range records {
		steps = append(steps, r.save()...)
		for _, p := range r.Parts {
			steps = append(steps, insertPart(r.Key, p))
		}
	}
	if err := j.change(steps...); err != nil {
		return err
	}
	for _, r := range records {
		r.Superseded.unsaved = 0
	}
	return nil
}
