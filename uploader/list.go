package uploader

import (
	"cmp"
	"slices"
	"time"

	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// Query says which files a [Snapshot] names.
type Query struct {
	States  []state.State // none: all but completed and empty ones
	Sending bool          // only files with a call to the API under way, or that wait for their next attempt
	Queued  bool          // only files that wait for their turn, whatever their state
	After   string        // only paths after this one
	Limit   int           // at most so many; 0 is no limit
}

// states are those that q is about.
func (q *Query) states() []state.State {
	if len(q.States) > 0 {
		return q.States
	}
	return slices.DeleteFunc(slices.Clone(state.All), func(s state.State) bool { return s == state.Completed || s == state.Empty })
}

// Snapshot is what is known of the whole tree at about one moment, with all files that
// are neither completed nor empty.
func (u *Uploader) Snapshot() (Snapshot, error) { return u.Find(Query{}) }

// Totals is [Uploader.Snapshot] without files.
func (u *Uploader) Totals() (Snapshot, error) {
	snap := Snapshot{Parallel: u.schedule.parallel(), InFlight: u.schedule.largeParts(), Comparing: u.recovery.progress()}
	snap.Sending, snap.Queued = u.sending(time.Now())
	var err error
	snap.Counts, err = u.journal.Counts()
	return snap, err
}

// Find is [Uploader.Snapshot] with the files of q.
func (u *Uploader) Find(q Query) (Snapshot, error) {
	snap, err := u.Totals()
	if err != nil {
		return snap, err
	}
	more := q
	if q.Limit > 0 {
		more.Limit++ // whether there is another page
	}
	if snap.Files, snap.Matches, err = u.files(more); err != nil {
		return snap, err
	}
	if !q.Sending && !q.Queued {
		for _, s := range q.states() {
			snap.Matches += snap.Counts[s]
		}
	}
	if q.Limit > 0 && len(snap.Files) > q.Limit {
		snap.Files = snap.Files[:q.Limit]
		snap.Next = snap.Files[q.Limit-1].Path
	}
	return snap, nil
}

// Files are those of q, without what Find says of the whole tree.
func (u *Uploader) Files(q Query) ([]*Status, error) {
	files, _, err := u.files(q)
	return files, err
}

// files are those of q. Of what is in memory it also says how many there are in all.
func (u *Uploader) files(q Query) (files []*Status, all int, err error) {
	now := time.Now()
	if q.Sending || q.Queued {
		files, all = u.working(q, now)
		return files, all, nil
	}
	files, err = u.list(q, now)
	return files, 0, err
}

// list reads the journal, and the newest status of what is in memory.
func (u *Uploader) list(q Query, now time.Time) ([]*Status, error) {
	rows, err := u.journal.List(q.states(), q.After, q.Limit)
	if err != nil {
		return nil, err
	}
	var files []*Status
	for _, r := range rows {
		st, err := u.statusNow(r, now)
		if err != nil {
			return nil, err
		}
		files = append(files, st)
	}
	return files, nil
}

// statusNow is the status of a file whose record has been read without its lists.
func (u *Uploader) statusNow(r *journal.Record, now time.Time) (*Status, error) {
	u.mu.Lock()
	s := u.sessions[r.Key]
	u.mu.Unlock()
	if s != nil {
		return s.status.Load().at(now), nil
	}
	if err := u.journal.LoadLists(r); err != nil {
		return nil, err
	}
	return u.recorded(r, now), nil
}

// working names files of which something is under way, or that wait for that, and says
// how many there are. All of them are in memory.
func (u *Uploader) working(q Query, now time.Time) (files []*Status, all int) {
	u.mu.Lock()
	for _, s := range u.sessions {
		st := s.status.Load().at(now)
		if st.unlinked {
			continue
		}
		if q.Sending && (st.Calls > 0 || st.State == state.Retrying) || q.Queued && st.Queued {
			if all++; st.Path > q.After {
				files = append(files, st)
			}
		}
	}
	u.mu.Unlock()
	slices.SortFunc(files, func(a, b *Status) int { return cmp.Compare(a.Path, b.Path) })
	if q.Limit > 0 && len(files) > q.Limit {
		files = files[:q.Limit]
	}
	return files, all
}
