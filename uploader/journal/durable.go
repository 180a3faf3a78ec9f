package journal

import (
	"math"

	"uploadfs/uploader/backing"
)

// MarkDurable records, for each file, that the content it speaks of is on the disk,
// where the file has this stamp. A file of which the record says another size or
// mtime by now is left out.
func (j *Journal) MarkDurable(files map[backing.Key]backing.Stamp) error {
	var steps []step
	for key, d := range files {
		steps = append(steps, step{`UPDATE files SET durable_size=?3, durable_mtime=?4, durable_ctime=?5
			WHERE ino=?1 AND birth=?2 AND size=?3 AND mtime=?4`, []any{int64(key.Ino), key.Birth, d.Size, d.Mtime, d.Ctime}})
	}
	return j.change(steps...)
}

// Rekey gives files that have another identity now (a copied tree) their new keys, with
// their parts and superseded Files. The ctime of a copy says nothing, so it is not known.
// A new key may be the old one of another file in moves, and of no other.
func (j *Journal) Rekey(moves map[backing.Key]backing.Key) error {
	// By way of keys that no file has, because two files may change places.
	const aside = math.MinInt64
	const files = `UPDATE files SET ctime=0, durable_ctime=0, ino=?, birth=? WHERE ino=? AND birth=?`
	const parts = `UPDATE parts SET ino=?, birth=? WHERE ino=? AND birth=?`
	const superseded = `UPDATE superseded SET ino=?, birth=? WHERE ino=? AND birth=?`
	var away, back []step
	n := int64(0)
	for from, to := range moves {
		n++
		for _, query := range []string{files, parts, superseded} {
			away = append(away, step{query, []any{n, int64(aside), int64(from.Ino), from.Birth}})
			back = append(back, step{query, []any{int64(to.Ino), to.Birth, n, int64(aside)}})
		}
	}
	return j.change(append(away, back...)...)
}
