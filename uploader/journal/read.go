package journal

import (
	"database/sql"
	"sync"
)

// reader answers queries beside the writer, by prepared statements.
type reader struct {
	db       *sql.DB
	prepared sync.Map // *sql.Stmt by its query
}

func (r *reader) stmt(query string) (*sql.Stmt, error) {
	if stmt, ok := r.prepared.Load(query); ok {
		return stmt.(*sql.Stmt), nil
	}
	stmt, err := r.db.Prepare(query)
	if err != nil {
		return nil, failure(err)
	}
	if first, loaded := r.prepared.LoadOrStore(query, stmt); loaded {
		return first.(*sql.Stmt), stmt.Close()
	}
	return stmt, nil
}

func (r *reader) rows(query string, args ...any) (*sql.Rows, error) {
	stmt, err := r.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.Query(args...)
	if err != nil {
		return nil, failure(err)
	}
	return rows, nil
}
