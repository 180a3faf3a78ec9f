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
	"time"

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
	snap, err := d.parts.uploader.Snapshot()
	if err != nil {
		return metrics.Files{}, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir.file(treeDir), &st); err != nil {
		return metrics.Files{}, err
	}
	f := metrics.Files{
		ByState: snap.Counts, Slots: snap.Parallel, SlotsInUse: snap.InFlight,
		DiskFree: int64(st.Bavail) * int64(st.Bsize),
	}
	for _, file := range snap.Files {
		if since := pendingSince(file); !since.IsZero() && (f.OldestPending.IsZero() || since.Before(f.OldestPending)) {
			f.OldestPending = since
		}
	}
	return f, nil
}

// pendingSince is since when a file waits to be uploaded; zero for one that does not.
func pendingSince(f *uploader.Status) time.Time {
	if f.State.Committing() {
		return f.Pending
	}
	return time.Time{}
}

// view is what the page shows now.
func (d *daemon) view(ctx context.Context) (web.View, error) {
	rep, err := d.report(ctx, uploader.Query{})
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
	for _, f := range rep.Files {
		v.Files = append(v.Files, viewFile(f))
	}
	slices.SortStableFunc(v.Files, func(a, b web.File) int { return web.Rank(a) - web.Rank(b) })
	if n := len(v.Files) - shownFiles; n > 0 {
		v.Files, v.More = v.Files[:shownFiles], n
	}
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
