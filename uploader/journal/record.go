package journal

import (
	"database/sql"
	"errors"
	"strings"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// Record is one file's row. Its lists, which are the parts and the last superseded
// Files, are there where a method says so.
type Record struct {
	Key        backing.Key
	Path       string
	State      state.State
	Since      time.Time
	Open       bool
	Size       int64         // of the content the state speaks of, as at its last close
	Mtime      int64         // the same, ns since the epoch; 0 if not known
	Ctime      int64         // the same
	Boot       string        // boot ID of the kernel under which the content was last known to be whole; "" if not known
	Durable    backing.Stamp // the file when this content was on the disk; zero if it is not known to be
	Spec       api.Spec      // as declared; zero while there is no Upload
	Upload     api.Upload
	CreatedAt  time.Time
	Completing bool // Complete was called for the Upload, and the outcome is not known
	FileID     string
	MD5        string
	Err        string
	Kind       api.Kind
	Superseded Superseded
	Temporary  bool // its open has created it as a file that gets its final name later
	Parts      []Part
}

// Part is an acknowledged part.
type Part struct {
	Off, Len int64
	CRC      uint32
	ID       string
}

// ForgetUpload takes the Upload, and what was sent to it, out of the record.
func (r *Record) ForgetUpload() {
	r.Spec, r.Upload, r.CreatedAt = api.Spec{}, api.Upload{}, time.Time{}
	r.Parts = nil
}

const columns = `ino, birth, path, state, since, open, size, mtime, filename, purpose, mime_type, expires,
	declared, upload_id, created_at, expires_at, file_id, md5, error, kind,
	ctime, boot, durable_size, durable_mtime, durable_ctime, temporary`

// all columns, whether the Upload may be a File already, and how many Files are superseded.
const selected = columns + `, EXISTS (SELECT 1 FROM completing WHERE completing.upload_id = files.upload_id),
	coalesce((SELECT max(n)+1 FROM superseded WHERE superseded.ino = files.ino AND superseded.birth = files.birth), 0)`

// Stamp is the state of the file that the record speaks of.
func (r *Record) Stamp() backing.Stamp {
	return backing.Stamp{Size: r.Size, Mtime: r.Mtime, Ctime: r.Ctime}
}

// Also is what is recorded together with a record.
type Also step

// WithoutParts forgets the parts of a file, whose Upload is a new one.
func WithoutParts(key backing.Key) Also {
	return Also{`DELETE FROM parts WHERE ino=? AND birth=?`, []any{int64(key.Ino), key.Birth}}
}

// WithResolved records what [Journal.Resolved] does.
func WithResolved(uploadID string) Also {
	return Also{`DELETE FROM completing WHERE upload_id=?`, []any{uploadID}}
}

// Put writes the row of r and its new superseded Files. It writes neither parts nor
// completing, unless also says so.
func (j *Journal) Put(r *Record, also ...Also) error {
	steps := r.save()
	for _, a := range also {
		steps = append(steps, step(a))
	}
	if err := j.change(steps...); err != nil {
		return err
	}
	r.Superseded.unsaved = 0
	return nil
}

// save are the steps that write the row of r and its new superseded Files.
func (r *Record) save() []step {
	return append(r.saveSuperseded(), step{
		`INSERT OR REPLACE INTO files (` + columns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		[]any{int64(r.Key.Ino), r.Key.Birth, r.Path, string(r.State), r.Since.UnixNano(), r.Open, r.Size, r.Mtime,
			r.Spec.Filename, r.Spec.Purpose, r.Spec.MimeType, int64(r.Spec.Expires / time.Second),
			r.Spec.Bytes, r.Upload.ID, nanos(r.CreatedAt), nanos(r.Upload.ExpiresAt),
			r.FileID, r.MD5, r.Err, int(r.Kind),
			r.Ctime, r.Boot, r.Durable.Size, r.Durable.Mtime, r.Durable.Ctime, r.Temporary}})
}

// PutPart adds an acknowledged part, in the place of earlier ones that it
// overlaps: they may have been cut differently.
func (j *Journal) PutPart(key backing.Key, p Part) error {
	return j.change(
		step{`DELETE FROM parts WHERE ino=? AND birth=? AND off<? AND off+len>?`, []any{int64(key.Ino), key.Birth, p.Off + p.Len, p.Off}},
		insertPart(key, p))
}

func insertPart(key backing.Key, p Part) step {
	return step{`INSERT INTO parts (ino, birth, off, len, crc, id) VALUES (?,?,?,?,?,?)`,
		[]any{int64(key.Ino), key.Birth, p.Off, p.Len, int64(p.CRC), p.ID}}
}

// DropParts forgets the parts of a file, whose Upload has ended.
func (j *Journal) DropParts(key backing.Key) error {
	return j.change(step(WithoutParts(key)))
}

// Delete forgets a file, but not which Files were its own.
func (j *Journal) Delete(key backing.Key) error {
	ino, now := int64(key.Ino), time.Now().UnixNano()
	return j.change(
		step{`INSERT OR IGNORE INTO disowned SELECT file_id, ? FROM files WHERE ino=? AND birth=? AND file_id <> ''`, []any{now, ino, key.Birth}},
		step{`INSERT OR IGNORE INTO disowned SELECT file_id, ? FROM superseded WHERE ino=? AND birth=?`, []any{now, ino, key.Birth}},
		step{`DELETE FROM files WHERE ino=? AND birth=?`, []any{ino, key.Birth}},
		step{`DELETE FROM superseded WHERE ino=? AND birth=?`, []any{ino, key.Birth}},
		step{`DELETE FROM parts WHERE ino=? AND birth=?`, []any{ino, key.Birth}})
}

// Forget deletes the records whose state is older than that, with all that belongs to them.
func (j *Journal) Forget(before time.Time) error {
	return j.change(
		step{`DELETE FROM files WHERE since < ?`, []any{before.UnixNano()}},
		step{query: `DELETE FROM parts WHERE NOT EXISTS (SELECT 1 FROM files WHERE files.ino = parts.ino AND files.birth = parts.birth)`},
		step{query: `DELETE FROM superseded WHERE NOT EXISTS
			(SELECT 1 FROM files WHERE files.ino = superseded.ino AND files.birth = superseded.birth)`})
}

// Get returns the record of a file with its lists, nil if there is none.
func (j *Journal) Get(key backing.Key) (*Record, error) {
	rows, err := j.reader.rows(`SELECT `+selected+` FROM files WHERE ino=? AND birth=?`, int64(key.Ino), key.Birth)
	if err != nil {
		return nil, err
	}
	found, err := scanRecords(rows)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	r := found[0]
	return r, j.LoadLists(r)
}

// Parts returns the acknowledged parts of a file, in file order.
func (j *Journal) Parts(key backing.Key) ([]Part, error) {
	rows, err := j.reader.rows(`SELECT off, len, crc, id FROM parts WHERE ino=? AND birth=? ORDER BY off`, int64(key.Ino), key.Birth)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var parts []Part
	for rows.Next() {
		var p Part
		if err := rows.Scan(&p.Off, &p.Len, &p.CRC, &p.ID); err != nil {
			return nil, failure(err)
		}
		parts = append(parts, p)
	}
	return parts, rows.Err()
}

// All returns every record, without its lists.
func (j *Journal) All() ([]*Record, error) { return j.query("") }

// List returns the records of files in these states whose path is after the given one,
// by path and without their lists; at most limit if that is not 0.
func (j *Journal) List(states []state.State, after string, limit int) ([]*Record, error) {
	if limit == 0 {
		limit = -1
	}
	var args []any
	for _, s := range states {
		args = append(args, string(s))
	}
	return j.query(`WHERE state IN (`+marks(len(states))+`) AND path > ? ORDER BY path LIMIT ?`, append(args, after, limit)...)
}

// Below returns the paths of the files in a directory and below it that are in these
// states, sorted. dir "" is the whole tree.
func (j *Journal) Below(dir string, states []state.State) ([]string, error) {
	where, below := "", []any(nil)
	if dir != "" {
		// Everything below "dir/" sorts from it up to "dir0", as '0' follows '/'.
		where, below = ` AND path >= ? AND path < ?`, []any{dir + "/", dir + "0"}
	}
	var args []any
	for _, s := range states {
		args = append(args, string(s))
	}
	rows, err := j.read.Query(`SELECT path FROM files WHERE state IN (`+marks(len(states))+`)`+where+` ORDER BY path`,
		append(args, below...)...)
	if err != nil {
		return nil, failure(err)
	}
	defer rows.Close()
	var paths []string
	for rows.Next() {
		var p string
		if err := rows.Scan(&p); err != nil {
			return nil, failure(err)
		}
		paths = append(paths, p)
	}
	return paths, rows.Err()
}

// marks are n placeholders of a statement.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

func (j *Journal) query(where string, args ...any) ([]*Record, error) {
	rows, err := j.read.Query(`SELECT `+selected+` FROM files `+where, args...)
	if err != nil {
		return nil, failure(err)
	}
	return scanRecords(rows)
}

// Counts returns how many files are in each state.
func (j *Journal) Counts() (map[state.State]int, error) {
	rows, err := j.read.Query(`SELECT state, count(*) FROM files GROUP BY state`)
	if err != nil {
		return nil, failure(err)
	}
	defer rows.Close()
	counts := map[state.State]int{}
	for rows.Next() {
		var s string
		var n int
		if err := rows.Scan(&s, &n); err != nil {
			return nil, failure(err)
		}
		counts[state.State(s)] = n
	}
	return counts, rows.Err()
}

// Renamed gives the file at from, and everything below it, its new path.
func (j *Journal) Renamed(from, to string) error {
	// Everything below "dir/" sorts from it up to "dir0", as '0' follows '/'.
	return j.exec(`UPDATE files SET path = ?2 || substr(path, length(?1)+1)
		WHERE path = ?1 OR (path >= ?1 || '/' AND path < ?1 || '0')`, from, to)
}

// StateOf returns the state of a file, "" if it has no record.
func (j *Journal) StateOf(key backing.Key) (s state.State, err error) {
	stmt, err := j.reader.stmt(`SELECT state FROM files WHERE ino=? AND birth=?`)
	if err != nil {
		return "", err
	}
	err = stmt.QueryRow(int64(key.Ino), key.Birth).Scan(&s)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", failure(err)
	}
	return s, nil
}

func scanRecords(rows *sql.Rows) ([]*Record, error) {
	defer rows.Close()
	var all []*Record
	for rows.Next() {
		var (
			r                        Record
			ino, since, created, exp int64
			life                     int64
			stands                   string
		)
		err := rows.Scan(&ino, &r.Key.Birth, &r.Path, &stands, &since, &r.Open, &r.Size, &r.Mtime,
			&r.Spec.Filename, &r.Spec.Purpose, &r.Spec.MimeType, &life,
			&r.Spec.Bytes, &r.Upload.ID, &created, &exp,
			&r.FileID, &r.MD5, &r.Err, &r.Kind,
			&r.Ctime, &r.Boot, &r.Durable.Size, &r.Durable.Mtime, &r.Durable.Ctime, &r.Temporary, &r.Completing, &r.Superseded.Count)
		if err != nil {
			return nil, failure(err)
		}
		r.Key.Ino, r.State, r.Since = uint64(ino), state.State(stands), time.Unix(0, since)
		r.Spec.Expires = time.Duration(life) * time.Second
		r.CreatedAt, r.Upload.ExpiresAt = fromNanos(created), fromNanos(exp)
		all = append(all, &r)
	}
	if err := rows.Err(); err != nil {
		return nil, failure(err)
	}
	return all, nil
}

// nanos keeps the zero time zero.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
