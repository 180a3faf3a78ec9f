package journal

import (
	"slices"

	"uploadfs/uploader/backing"
)

// LastSuperseded is how many of the superseded Files a record names.
const LastSuperseded = 8

// Superseded are the Files that held earlier contents of one file. A log that is
// written again and again has thousands, so a record names the last few. The journal
// has them all.
type Superseded struct {
	Count   int
	Last    []string // the last ones, oldest first
	unsaved int      // how many at the end of Last the journal does not have
}

// add adds a File. Those that the journal does not have stay.
func (s *Superseded) add(fileID string) {
	last := s.Last
	if extra := len(last) - max(LastSuperseded-1, s.unsaved); extra > 0 {
		last = last[extra:]
	}
	// Copies of the record share the list, so it is never appended to in place.
	s.Last = append(slices.Clip(last), fileID)
	s.Count++
	s.unsaved++
}

// Supersede remembers a File that held an earlier content.
func (r *Record) Supersede(fileID string) { r.Superseded.add(fileID) }

// saveSuperseded are the steps that bring the Files of r to the journal that it does
// not have.
func (r *Record) saveSuperseded() []step {
	s := r.Superseded
	var steps []step
	for i, id := range s.Last[len(s.Last)-s.unsaved:] {
		steps = append(steps, step{`INSERT OR REPLACE INTO superseded (ino, birth, n, file_id) VALUES (?,?,?,?)`,
			[]any{int64(r.Key.Ino), r.Key.Birth, s.Count - s.unsaved + i, id}})
	}
	return steps
}

// Superseded returns at most limit of the Files that held earlier contents of a file,
// oldest first, from the one with number from on.
func (j *Journal) Superseded(key backing.Key, from, limit int) ([]string, error) {
	return j.fileIDs(`SELECT file_id FROM superseded WHERE ino=? AND birth=? AND n>=? ORDER BY n LIMIT ?`,
		int64(key.Ino), key.Birth, from, limit)
}

// LoadLists reads the lists of a record that came without them.
func (j *Journal) LoadLists(r *Record) (err error) {
	if r.Upload.ID != "" {
		if r.Parts, err = j.Parts(r.Key); err != nil {
			return err
		}
	}
	s := &r.Superseded
	if s.Count == s.unsaved {
		return nil
	}
	last, err := j.fileIDs(`SELECT file_id FROM superseded WHERE ino=? AND birth=? ORDER BY n DESC LIMIT ?`,
		int64(r.Key.Ino), r.Key.Birth, LastSuperseded)
	slices.Reverse(last)
	s.Last = append(last, s.Last[len(s.Last)-s.unsaved:]...)
	return err
}

func (j *Journal) fileIDs(query string, args ...any) ([]string, error) {
	rows, err := j.reader.rows(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, failure(err)
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
