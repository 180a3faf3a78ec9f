// Package web serves a page that shows one mount, and what programs read of it: the
// status, the metrics and a check of health. It changes nothing.
//
// File names are private. What names files is given only to those who have the token,
// which is in the page's URL. On a loopback listener every request must name a loopback
// host: a web page of another origin could otherwise read the answers under a name of
// its own.
package web

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

//go:embed static
var static embed.FS

// Limits of the server.
const (
	requestTimeout = 10 * time.Second // to read a request, and to write an event
	answerTimeout  = time.Minute      // to make and write any other answer
	maxWatchers    = 64               // pages that are open at once
	maxHeader      = 16 << 10         // bytes
)

// writeTimeout is a variable for tests.
var writeTimeout = answerTimeout

// Source is what the server shows. The functions may be called concurrently.
type Source struct {
	Status  func(context.Context) (any, error)  // for programs; it becomes JSON
	View    func(context.Context) (View, error) // for the page
	Sent    func() int64                        // bytes sent so far, for the plot
	Metrics http.Handler
	Healthy func() error // what is wrong with the mount; nil if it works
}

// ParseListen reads an address to listen on. Without a host it is one of loopback.
func ParseListen(s string) (string, error) {
	if !strings.Contains(s, ":") {
		s = ":" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		return "", errors.New("give HOST:PORT, or PORT for 127.0.0.1")
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// NewToken makes a token for [Listen].
func NewToken() string { return rand.Text() }

// Server serves one mount. Create it with [Listen].
type Server struct {
	source   Source
	token    string
	listener net.Listener
	loopback bool // it listens on loopback only
	server   *http.Server
	plot     plot
	watchers chan struct{} // a place for each
	stop     context.CancelFunc
	work     sync.WaitGroup
	log      *slog.Logger
}

// Listen listens on an address of [ParseListen] and serves. The caller must call Close.
func Listen(addr, token string, source Source, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		source: source, token: token, listener: l, stop: stop, log: log,
		loopback: l.Addr().(*net.TCPAddr).IP.IsLoopback(),
		watchers: make(chan struct{}, maxWatchers),
	}
	s.server = &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends the event streams
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      writeTimeout, // an event stream sets its own
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // any client can cause these
	}
	s.work.Go(func() { s.plot.run(ctx, source.Sent) })
	s.work.Go(func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the page is not served any more", "error", err)
		}
	})
	return s, nil
}

// Close ends the server and all that it serves.
func (s *Server) Close() error {
	s.stop()
	err := s.server.Close()
	s.work.Wait()
	return err
}

// URL is the address of the page, with the token.
func (s *Server) URL() string {
	addr := s.listener.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(host, fmt.Sprint(addr.Port)), Path: "/"}
	u.RawQuery = url.Values{"token": {s.token}}.Encode()
	return u.String()
}

func (s *Server) handler() http.Handler {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the directory is embedded
	}
	assets := http.FileServerFS(files)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.source.Metrics)
	mux.HandleFunc("GET /healthz", s.health)
	mux.Handle("GET /page.js", assets) // these two name nothing
	mux.Handle("GET /page.css", assets)
	mux.Handle("GET /{$}", s.private(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "page.html")
	}))
	mux.Handle("GET /status.json", s.private(s.status))
	mux.Handle("GET /events", s.private(s.events))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.loopback && !isLoopback(r.Host) {
			http.Error(w, "this server is for this machine: name it localhost or 127.0.0.1", http.StatusMisdirectedRequest)
			return
		}
		header := w.Header()
		header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// isLoopback reports whether the Host of a request names this machine.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// private refuses requests without the token, which is in the URL or sent as a bearer's.
func (s *Server) private(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.URL.Query().Get("token")
		if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			token = bearer
		}
		if subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1 {
			http.Error(w, "the URL of this page has a token: see uploadfs status", http.StatusForbidden)
			return
		}
		next(w, r)
	})
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if err := s.source.Healthy(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	status, err := s.source.Status(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(status) // an error means that the client has gone
}
