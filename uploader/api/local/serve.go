package local

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// NewHTTPServer returns an http.Server for s. It speaks HTTP/1.1 only: HTTP/2 would put all parts on one connection, and
// so limit them to its rate. Its headers are bounded. A request has no deadline, because a part may take long;
// Options.StallTimeout ends stalled requests instead. It counts connections in Stats, and
// closes those beyond Options.MaxConnections.
//
// The caller runs it and shuts it down. Serve does both.
func (s *Server) NewHTTPServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelWarn),
		ConnState:         s.connState,
	}
}

// Serve accepts connections on l until Shutdown or Close, and then returns nil. It returns nil at once if the Server is
// already closed. It closes l.
func (s *Server) Serve(l net.Listener) error {
	hs := s.NewHTTPServer()
	s.callMu.Lock()
	if s.closed {
		s.callMu.Unlock()
		return l.Close()
	}
	s.servers = append(s.servers, hs)
	s.callMu.Unlock()

	if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops accepting connections, waits for the requests under way until ctx ends, and closes the Server.
func (s *Server) Shutdown(ctx context.Context) error {
	s.callMu.Lock()
	servers := s.servers
	s.callMu.Unlock()

	var errs []error
	for _, hs := range servers {
		errs = append(errs, hs.Shutdown(ctx))
	}
	return errors.Join(append(errs, s.Close())...)
}
