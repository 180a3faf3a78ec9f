package mount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"uploadfs/uploader"
)

// ErrNoDaemon means that no process listens for a mount any more: its daemon was
// killed, or has just ended.
var ErrNoDaemon = errors.New("no daemon answers")

// dialTimeout bounds connecting to a daemon of this machine.
const dialTimeout = 2 * time.Second

// maxAnswer bounds what a client reads of an answer: the directory, and so the
// socket, comes from a mount that any user may have made.
const maxAnswer = 1 << 30

// Client talks to the daemon of one mount. It may be used concurrently.
type Client struct {
	mount Entry
	http  http.Client
}

// NewClient returns a client of the daemon that serves the mount. Its calls end with
// their context, whatever the mount's source turns out to be.
func NewClient(m Entry) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialDaemon(ctx, m) }
	return &Client{mount: m, http: http.Client{Transport: &http.Transport{
		DialContext:       dial,
		DisableKeepAlives: true,
	}}}
}

// Status asks what the mount is doing, with the files of q.
func (c *Client) Status(ctx context.Context, q uploader.Query) (Report, error) {
	var rep Report
	return rep, c.call(ctx, http.MethodGet, "/status?"+queryValues(q).Encode(), nil, &rep)
}

// Retry has a failed or interrupted file tried again, or all of them in a directory and
// below it; path is below the mount. It returns how many are tried.
func (c *Client) Retry(ctx context.Context, path string) (int, error) {
	var answer retried
	err := c.call(ctx, http.MethodPost, "/retry", url.Values{"path": {path}}, &answer)
	return answer.Files, err
}

// Cancel has the upload of a file ended; path is below the mount.
func (c *Client) Cancel(ctx context.Context, path string) error {
	return c.call(ctx, http.MethodPost, "/cancel", url.Values{"path": {path}}, &struct{}{})
}

// Set changes settings of the running mount.
func (c *Client) Set(ctx context.Context, s Settings) error {
	return c.send(ctx, http.MethodPost, "/set", s, &struct{}{})
}

// Unmount ends the mount and returns when its daemon is gone. syscall.EBUSY
// means that something is open on it, and that nothing has changed. When ctx ends
// first, the daemon goes on to its end by itself.
func (c *Client) Unmount(ctx context.Context, o UnmountOptions) (Outcome, error) {
	daemon, err := c.daemon(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer daemon.close()
	var out Outcome
	if err := c.call(ctx, http.MethodPost, "/unmount", o.form(), &out); err != nil {
		return Outcome{}, err
	}
	return out, daemon.wait(ctx)
}

// daemon finds the process that serves the mount.
func (c *Client) daemon(ctx context.Context) (process, error) {
	conn, err := dialDaemon(ctx, c.mount)
	if err != nil {
		return process{}, dialError(err)
	}
	defer conn.Close()
	p, err := peer(conn)
	if err != nil {
		return process{}, fmt.Errorf("find the daemon: %w", err)
	}
	return p, nil
}

// kill ends the daemon at once, and returns when it is gone.
func (c *Client) kill(ctx context.Context) error {
	daemon, err := c.daemon(ctx)
	if err != nil {
		return err
	}
	defer daemon.close()
	if err := daemon.kill(); err != nil {
		return err
	}
	return daemon.wait(ctx)
}

// send makes one request with a JSON body, and reads its JSON answer into v.
func (c *Client) send(ctx context.Context, method, path string, body, v any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.request(ctx, method, path, "application/json", string(text), v)
}

// call makes one request with a form, and reads its JSON answer into v.
func (c *Client) call(ctx context.Context, method, path string, form url.Values, v any) error {
	return c.request(ctx, method, path, "application/x-www-form-urlencoded", form.Encode(), v)
}

func (c *Client) request(ctx context.Context, method, path, kind, text string, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://mount"+path, strings.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	if c.mount.Device != "" {
		req.Header.Set(deviceHeader, c.mount.Device)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var detail *url.Error
		if errors.As(err, &detail) {
			err = detail.Err // the rest names the socket as if it were a web page
		}
		return dialError(err)
	}
	defer resp.Body.Close()
	body := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode == http.StatusOK {
		return body.Decode(v)
	}
	var fail failure
	if err := body.Decode(&fail); err != nil || fail.Error == "" {
		return fmt.Errorf("the daemon answered %s", resp.Status)
	}
	switch resp.StatusCode {
	case http.StatusConflict:
		return &busyError{fail.Error}
	case http.StatusMisdirectedRequest:
		return ErrNoDaemon // it serves another mount, and this one is dead
	}
	return errors.New(fail.Error)
}

// busyError is the daemon's word that the mount is in use.
type busyError struct{ message string }

func (e *busyError) Error() string { return e.message }
func (e *busyError) Unwrap() error { return syscall.EBUSY }

// dialError turns the errors of a socket without a listener into [ErrNoDaemon].
func dialError(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return ErrNoDaemon
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the mount belongs to another user: %w", fs.ErrPermission)
	}
	return err
}

// dialDaemon connects to the daemon of a mount. It refuses a process of another user
// than the mount's: any user can mount with any source.
//
// The source may lie on a filesystem that does not answer. So a goroutine connects,
// which ends by itself, or with the process, if ctx ends first. While one such
// goroutine is left, no other one is started for the same source.
func dialDaemon(ctx context.Context, m Entry) (*net.UnixConn, error) {
	if _, stuck := stuckDials.Load(m.Source); stuck {
		return nil, fmt.Errorf("%s does not answer", Printable(m.Source))
	}
	type result struct {
		conn *net.UnixConn
		err  error
	}
	dialed, ended := make(chan result), make(chan struct{})
	go func() {
		conn, err := dialIn(ctx, m.Source)
		if err == nil {
			if err = checkPeer(conn, m.Owner); err != nil {
				conn.Close()
			}
		}
		select {
		case dialed <- result{conn, err}:
		case <-ctx.Done():
			if err == nil {
				conn.Close()
			}
		}
		close(ended)
		stuckDials.CompareAndDelete(m.Source, ended)
	}()
	select {
	case r := <-dialed:
		return r.conn, r.err
	case <-ctx.Done():
		stuckDials.Store(m.Source, ended)
		select {
		case <-ended: // before it could be stored
			stuckDials.CompareAndDelete(m.Source, ended)
		default:
		}
		return nil, context.Cause(ctx)
	}
}

// stuckDials holds the sources that a connecting goroutine has been left with.
var stuckDials sync.Map

// checkPeer refuses a process of another user than the mount's.
func checkPeer(conn *net.UnixConn, owner int) error {
	uid, err := peerUser(conn)
	if err == nil && uid != owner {
		err = fmt.Errorf("its source leads to a process of user %d, and user %d made the mount: its daemon was not asked", uid, owner)
	}
	return err
}

// reachable reports whether the mount's daemon listens. A kernel accepts the
// connection even of a daemon that is busy or stopped.
func reachable(m Entry) bool {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	c, err := dialDaemon(ctx, m)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
