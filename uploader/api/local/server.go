package local

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server is the API over one directory. It is an http.Handler; see Serve for the listening side.
//
// Lock order: upload.ending, then mu, then callMu. No lock is held while a body is read or an answer is written.
// Neither mu nor callMu is held during disk I/O.
type Server struct {
	opt   Options
	store *store

	intercept atomic.Pointer[InterceptFunc]
	faults    atomic.Pointer[Faults]
	counters  counters
	line      sharedLine
	requests  requestLimit

	connections connections

	// mu guards the following, and the mutable fields of every upload and file in them.
	mu      sync.Mutex
	uploads map[string]*upload
	files   map[string]*file
	ordered []*file // files by Seq
	lastSeq int64   // of uploads and files

	// callMu guards the following.
	callMu  sync.Mutex
	calls   map[*call]struct{} // under way
	servers []*http.Server     // started by Serve
	closed  bool

	done    chan struct{}  // closed by Close: stop
	running sync.WaitGroup // calls, the janitor
}

// upload is an Upload. Of its record only Status, FileID and Parts change. A change holds both ending and Server.mu; a
// read holds either.
type upload struct {
	// ending is held while the Upload is being completed, cancelled or expired, so only one of these happens. It may
	// be held for seconds (MD5). So never lock it with Server.mu held.
	ending sync.Mutex

	uploadRecord

	// parts and received (the same, in the order of their answers) are guarded by Server.mu.
	parts    map[string]*part
	received []*part
}

// part is a part of an Upload. It does not change.
type part struct {
	partRecord
	created time.Time
}

// file is a File. The record does not change; the rest is guarded by Server.mu.
type file struct {
	fileRecord
	readers int  // downloads under way; the last one removes the bytes of a gone file
	gone    bool // deleted or expired
}

// Open locks a directory, rebuilds the state from it, removes garbage and starts the janitor. The caller must Close the
// Server.
func Open(opt Options) (*Server, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, err
	}
	st, err := openStore(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("built-in API server: %w", err)
	}
	s := &Server{
		opt:     opt,
		store:   st,
		uploads: make(map[string]*upload),
		files:   make(map[string]*file),
		calls:   make(map[*call]struct{}),
		done:    make(chan struct{}),
	}
	s.SetFaults(opt.Faults)
	s.SetIntercept(opt.Intercept)
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("built-in API server: read %s: %w", opt.Dir, err), st.close())
	}
	s.Collect()
	s.running.Go(s.janitor)
	return s, nil
}

// Close aborts the requests under way, waits for them and for the janitor, and unlocks the directory. A hook
// (Options.Intercept, Options.Observe) that blocks must be released first. Requests after Close are answered 503. A
// second Close does nothing.
func (s *Server) Close() error {
	s.callMu.Lock()
	if s.closed {
		s.callMu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	servers := s.servers
	for c := range s.calls {
		c.abortIO()
	}
	s.callMu.Unlock()

	var errs []error
	for _, hs := range servers {
		errs = append(errs, hs.Close())
	}
	s.running.Wait()
	return errors.Join(append(errs, s.store.close())...)
}

// enter admits a call, unless the server is closed.
func (s *Server) enter(c *call) bool {
	s.callMu.Lock()
	defer s.callMu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	s.calls[c] = struct{}{}
	return true
}

// leave removes a call that enter admitted. After it the ResponseWriter must not be used.
func (s *Server) leave(c *call) {
	s.callMu.Lock()
	delete(s.calls, c)
	s.callMu.Unlock()
	s.running.Done()
}

func (s *Server) now() time.Time { return s.opt.Now() }

// warn logs an error that did not change the answer.
func (s *Server) warn(what string, err error) {
	if err != nil {
		s.opt.Log.Warn(what, "error", err)
	}
}
