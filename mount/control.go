package mount

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"uploadfs/uploader"
)

// Report is what `status` shows of a mount.
type Report struct {
	MountPoint string    `json:"mount_point"`
	StateDir   string    `json:"state_dir"`
	Endpoint   string    `json:"endpoint"`
	WritePath  string    `json:"write_path"`
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	Ending     bool      `json:"ending"` // unmounted; what is pending is being drained
	Disk       Disk      `json:"disk"`
	Notes      []string  `json:"notes,omitempty"`        // what users of the mount should know, one sentence each
	Paused     bool      `json:"paused"`                 // no further call to the API begins
	Limit      int64     `json:"limit_upload,omitempty"` // bytes per second
	Page       string    `json:"page,omitempty"`         // URL of the page of --http, with its token
	uploader.Snapshot
}

// listed is the report as JSON has it: with a list of files, whatever its length.
func (r Report) listed() Report {
	if r.Files == nil {
		r.Files = []*uploader.Status{}
	}
	return r
}

// Disk is the backing tree's share of its filesystem, in bytes.
type Disk struct {
	Used int64 `json:"used_bytes"` // by the tree
	Free int64 `json:"free_bytes"` // to this user
}

// Outcome is what a mount left behind: paths below the mount, sorted.
type Outcome struct {
	Left    []string `json:"left"` // goes on at the next mount
	Kept             // became so during the mount
	Earlier Kept     `json:"earlier"` // were so before the mount, and nothing was done about them
}

// Kept are files that stay until the user or a program does something about them.
type Kept struct {
	Failed      []string `json:"failed"`      // refused by the API
	Interrupted []string `json:"interrupted"` // their writer did not finish, or the user has cancelled them
}

// Err says that work was left, or that files have failed; nil if neither.
func (o *Outcome) Err() error {
	if len(o.Left)+len(o.Failed)+len(o.Interrupted) == 0 {
		return nil
	}
	return &LeftError{*o}
}

// UnmountOptions say how a mount is ended. The zero value is a clean end.
type UnmountOptions struct {
	Lazy    bool           // also if something is open on it
	Force   bool           // the same, wait for no upload, and kill a daemon that does not answer
	Timeout *time.Duration // how long uploads are waited for; nil is the mount's own --drain-timeout
}

// Limits of the control socket. Its clients are this user's own commands, but a
// script in a loop is one too.
const (
	controlBody    = 256 << 10 // bytes of a request: a path may be longer than PATH_MAX
	controlCalls   = 64        // at once; the caller of one more has to try again
	controlTimeout = 10 * time.Second
)

// deviceHeader names the filesystem, "major:minor", that a call is about. A daemon
// answers calls about another one with 421: that mount is of an earlier daemon with
// the same state directory.
const deviceHeader = "Uploadfs-Device"

// handlers are what the control socket can ask for.
type handlers struct {
	device  func() string // of the mount; "" before there is one
	status  func(context.Context, uploader.Query) (Report, error)
	retry   func(path string) (int, error)
	set     func(Settings) error
	cancel  func(path string) error
	unmount func(context.Context, UnmountOptions) (Outcome, error)
}

// control serves the control socket of one state directory.
type control struct {
	server *http.Server
	socket string
	done   chan struct{} // closed when nothing is served any more
}

// serveControl listens in the directory, replacing a dead daemon's socket: the
// caller holds the directory's lock.
func serveControl(dir string, h handlers, log *slog.Logger) (*control, error) {
	socket := filepath.Join(dir, socketFile)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := listenIn(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	c := &control{
		server: &http.Server{
			Handler:           h.mux(),
			ReadHeaderTimeout: controlTimeout,
			ReadTimeout:       controlTimeout,
			IdleTimeout:       controlTimeout,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
		socket: socket,
		done:   make(chan struct{}),
	}
	go func() { // ended and awaited by close
		defer close(c.done)
		if err := c.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the control socket is not served any more", "error", err)
		}
	}()
	return c, nil
}

// close lets the calls under way end, for a moment, and removes the socket.
func (c *control) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	err := c.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, c.server.Close())
	}
	<-c.done
	if rm := os.Remove(c.socket); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

func (h handlers) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		q, err := parseQuery(r.URL.Query())
		if err != nil {
			answer(w, nil, err)
			return
		}
		rep, err := h.status(r.Context(), q)
		answer(w, rep.listed(), err)
	})
	// Forms, not JSON: a path is bytes, and JSON knows only Unicode.
	mux.HandleFunc("POST /retry", func(w http.ResponseWriter, r *http.Request) {
		path, err := requestPath(r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		n, err := h.retry(path)
		answer(w, retried{n}, err)
	})
	mux.HandleFunc("POST /cancel", func(w http.ResponseWriter, r *http.Request) {
		path, err := requestPath(r)
		if err == nil {
			err = h.cancel(path)
		}
		answer(w, struct{}{}, err)
	})
	mux.HandleFunc("POST /set", func(w http.ResponseWriter, r *http.Request) {
		var s Settings
		err := json.NewDecoder(r.Body).Decode(&s)
		if err == nil {
			err = h.set(s)
		}
		answer(w, struct{}{}, err)
	})
	mux.HandleFunc("POST /unmount", func(w http.ResponseWriter, r *http.Request) {
		o, err := unmountOptions(r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		out, err := h.unmount(r.Context(), o)
		for _, list := range []*[]string{&out.Left, &out.Failed, &out.Interrupted, &out.Earlier.Failed, &out.Earlier.Interrupted} {
			if *list == nil {
				*list = []string{}
			}
		}
		answer(w, out, err)
	})
	slots := make(chan struct{}, controlCalls)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			http.Error(w, `{"error":"too many calls at once: try again"}`, http.StatusServiceUnavailable)
			return
		}
		if about := r.Header.Get(deviceHeader); about != "" && h.device != nil && h.device() != "" && about != h.device() {
			http.Error(w, `{"error":"this daemon serves another mount"}`, http.StatusMisdirectedRequest)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, controlBody)
		mux.ServeHTTP(w, r)
	})
}

// requestPath is the path that a request is about, below the mount. A form that cannot be
// read is about none: "" would be the whole mount.
func requestPath(r *http.Request) (string, error) {
	if err := r.ParseForm(); err != nil {
		return "", err
	}
	if !r.PostForm.Has("path") {
		return "", errors.New("a request without a path")
	}
	return r.PostForm.Get("path"), nil
}

// The fields of a request to unmount.
const (
	fieldLazy    = "lazy"
	fieldTimeout = "timeout"
)

// form is how a client sends the options. Force is the client's own.
func (o UnmountOptions) form() url.Values {
	v := url.Values{fieldLazy: {strconv.FormatBool(o.Lazy)}}
	if o.Timeout != nil {
		v.Set(fieldTimeout, o.Timeout.String())
	}
	return v
}

// unmountOptions reads what form has written.
func unmountOptions(r *http.Request) (o UnmountOptions, err error) {
	if err := r.ParseForm(); err != nil {
		return o, err
	}
	if text := r.PostForm.Get(fieldLazy); text != "" {
		if o.Lazy, err = strconv.ParseBool(text); err != nil {
			return o, err
		}
	}
	if text := r.PostForm.Get(fieldTimeout); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			return o, err
		}
		o.Timeout = &d
	}
	return o, nil
}

// retried is the answer to a request to try again.
type retried struct {
	Files int `json:"files"`
}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, v any, err error) {
	code := http.StatusOK
	switch {
	case errors.Is(err, syscall.EBUSY):
		code = http.StatusConflict
	case err != nil:
		code = http.StatusUnprocessableEntity
	}
	if err != nil {
		v = failure{err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// An error here means that the client has gone.
	_ = json.NewEncoder(w).Encode(v)
}
