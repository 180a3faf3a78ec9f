package journal

import (
	"database/sql"
	"sync"
)

// writer makes the changes of the journal. Those that come while one transaction is
// under way go into the next one together. Each caller returns when its own change is
// in the log.
type writer struct {
	db *sql.DB // one connection: SQLite has one writer

	mu      sync.Mutex // guards waiting, and is a leaf
	waiting []*change

	turn     sync.Mutex // is held for a transaction; guards what follows, and every change that was taken
	prepared map[string]*sql.Stmt
}

// change is what one caller wants to be recorded: all of its steps or none.
type change struct {
	steps []step
	done  bool
	err   error
}

// step is one statement of a change.
type step struct {
	query string
	args  []any
}

// make makes a change, with those of others that wait.
func (w *writer) make(steps ...step) error {
	c := &change{steps: steps}
	w.mu.Lock()
	w.waiting = append(w.waiting, c)
	w.mu.Unlock()

	w.turn.Lock()
	defer w.turn.Unlock()
	if c.done {
		return c.err
	}
	w.mu.Lock()
	group := w.waiting
	w.waiting = nil
	w.mu.Unlock()
	err := w.commit(group)
	for _, c := range group {
		if c.done, c.err = true, err; err != nil && len(group) > 1 {
			c.err = w.commit([]*change{c}) // one of them is at fault
		}
	}
	return c.err
}

// commit makes the changes in one transaction. turn is held.
func (w *writer) commit(group []*change) error {
	if len(group) == 1 && len(group[0].steps) == 1 {
		return w.exec(group[0].steps[0]) // is a transaction by itself
	}
	if err := w.exec(step{query: "BEGIN IMMEDIATE"}); err != nil {
		return err
	}
	for _, c := range group {
		for _, s := range c.steps {
			if err := w.exec(s); err != nil {
				return w.rollback(err)
			}
		}
	}
	if err := w.exec(step{query: "COMMIT"}); err != nil {
		return w.rollback(err)
	}
	return nil
}

// rollback ends a transaction that has failed with err. A full disk has ended it
// already.
func (w *writer) rollback(err error) error {
	w.exec(step{query: "ROLLBACK"})
	return err
}

func (w *writer) exec(s step) error {
	stmt := w.prepared[s.query]
	if stmt == nil {
		var err error
		if stmt, err = w.db.Prepare(s.query); err != nil {
			return err
		}
		w.prepared[s.query] = stmt
	}
	_, err := stmt.Exec(s.args...)
	return err
}

// paused runs f while no change is made.
func (w *writer) paused(f func() error) error {
	w.turn.Lock()
	defer w.turn.Unlock()
	return f()
}
