package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"uploadfs/mount/metrics"
	"uploadfs/mount/web"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

const (
	shownFiles     = 200 // at most, on the page
	shownCompleted = 10  // the same, of completed ones
)

// serveHTTP serves the page, if there is to be one.
func (d *daemon) serveHTTP() error {
	if d.config.HTTP == "" {
		return nil
	}
	token, err := d.dir.token()
	if err != nil {
		return err
	}
	m := d.parts.metrics
	m.Collect(d.fileMetrics)
	d.web, err = web.Listen(d.config.HTTP, token, web.Source{
		Status: func(ctx context.Context) (any, error) {
			rep, err := d.report(ctx, uploader.Query{})
			return rep.listed(), err
		},
		View:    d.view,
		Sent:    m.SentBytes,
		Metrics: m.Handler(d.log),
		Healthy: d.healthy,
	}, d.log.With("part", "http"))
	if err != nil {
		return fmt.Errorf("--http %s: %w: give another address", d.config.HTTP, err)
	}
	return nil
}

func (d *daemon) closeHTTP() error {
	if d.web == nil {
		return nil
	}
	return d.web.Close()
}

// page is the page's URL, with its token; "" without one.
func (d *daemon) page() string {
	if d.web == nil {
		return ""
	}
	return d.web.URL()
}

// token is the page's token. It stays the same over mounts, so that an open page goes on.
func (d *stateDir) token() (string, error) {
	name := d.file(tokenFile)
	text, err := os.ReadFile(name)
	if token := strings.TrimSpace(string(text)); err == nil && token != "" {
		return token, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("state directory: %w", err)
	}
	token := web.NewToken()
	return token, writeFile(name, []byte(token+"\n"), 0o600)
}

// healthy says what is wrong with the mount.
func (d *daemon) healthy() error {
	if d.device() == "" {
		return errNotReady
	}
	select {
	case <-d.ending:
		return errors.New("the mount is ending")
	default:
		return nil
	}
}

// fileMetrics is what the metrics say of files.
func (d *daemon) fileMetrics() (metrics.Files, error) {
	snap, err := d.parts.uploader.Totals()
	if err != nil {
		return metrics.Files{}, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir.file(treeDir), &st); err != nil {
		return metrics.Files{}, err
	}
	return metrics.Files{
		ByState: snap.Counts, OldestPending: snap.Sending.Pending, Slots: snap.Parallel, SlotsInUse: snap.InFlight,
		DiskFree: int64(st.Bavail) * int64(st.Bsize),
	}, nil
}

// pageOrder asks for the files of the page in the order of [web.Rank]. Of many thousands
// that wait, no more are read than it shows.
var pageOrder = []uploader.Query{
	{States: []state.State{state.Failed}, Limit: shownFiles},
	{States: []state.State{state.Interrupted}, Limit: shownFiles},
	{States: []state.State{state.Retrying}, Limit: shownFiles},
	{Sending: true, Limit: shownFiles},
	{States: []state.State{state.Uploading}, Limit: shownFiles},
	{States: []state.State{state.Writing, state.Held, state.Excluded}, Limit: shownFiles},
}

// view is what the page shows now.
func (d *daemon) view(ctx context.Context) (web.View, error) {
	rep, err := d.report(ctx, pageOrder[0])
	if err != nil {
		return web.View{}, err
	}
	v := web.View{
		MountPoint: rep.MountPoint, Endpoint: rep.Endpoint, WritePath: rep.WritePath, Ending: rep.Ending, Notes: rep.Notes,
		Counts: rep.Counts, Slots: rep.Parallel, SlotsInUse: rep.InFlight, DiskUsed: rep.Disk.Used, DiskFree: rep.Disk.Free,
		Completed: d.completed.list(),
	}
	if rep.Paused {
		v.Notes = slices.Insert(slices.Clone(v.Notes), 0, "paused: nothing is sent until uploadfs resume")
	}
	listed := map[string]bool{} // what is being sent also has a state
	add := func(files []*uploader.Status) {
		for _, f := range files {
			if !listed[f.Path] && len(v.Files) < shownFiles {
				listed[f.Path] = true
				v.Files = append(v.Files, viewFile(f))
			}
		}
	}
	add(rep.Files)
	for _, q := range pageOrder[1:] {
		if len(v.Files) == shownFiles {
			break
		}
		files, err := d.parts.uploader.Files(q)
		if err != nil {
			return v, err
		}
		add(files)
	}
	slices.SortStableFunc(v.Files, func(a, b web.File) int { return web.Rank(a) - web.Rank(b) })
	for s, n := range rep.Counts {
		if s != state.Completed && s != state.Empty {
			v.More += n
		}
	}
	v.More = max(v.More-len(v.Files), 0) // they were not counted at the same moment
	return v, nil
}

func viewFile(f *uploader.Status) web.File {
	return web.File{
		Path: f.Path, State: f.State, Size: f.Size, Sent: max(f.Acknowledged, f.BytesSent), Acked: f.Acked, Total: f.Total, Parts: f.Parts,
		FileID: f.FileID, Error: f.Error, NextAttempt: f.NextAttempt, Rate: f.Rate, ETA: f.ETA,
	}
}

// completedFiles are the last ones of this mount, for the page.
type completedFiles struct {
	mu    sync.Mutex
	files []web.File // the latest first
}

// add takes in a file that has been completed.
func (c *completedFiles) add(f *uploader.Status) {
	if f.State != state.Completed {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The page shows a path once.
	c.files = slices.DeleteFunc(c.files, func(old web.File) bool { return old.Path == f.Path })
	if c.files = slices.Insert(c.files, 0, viewFile(f)); len(c.files) > shownCompleted {
		c.files = c.files[:shownCompleted]
	}
}

func (c *completedFiles) list() []web.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.files)
}
