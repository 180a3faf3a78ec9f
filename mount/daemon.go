package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"uploadfs/fusefs"
	"uploadfs/mount/metrics"
	"uploadfs/mount/web"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// daemon is one running mount.
type daemon struct {
	config  Config
	dir     *stateDir
	log     *slog.Logger
	parts   *assembly
	web     *web.Server // nil without --http
	started time.Time
	disk    diskMeter

	completed completedFiles
	umask     int // of the process that started this one
	hooks     *hooks

	// mounted is closed when parts.server is there.
	mounted chan struct{}
	// ending is closed when the kernel has given the mount up.
	ending       chan struct{}
	endOnce      sync.Once
	unmountAsked atomic.Bool // a client has asked for the end
	// drainTimeout is how long uploads are waited for at the end, in nanoseconds.
	drainTimeout atomic.Int64
	// cutShort is closed when the draining is to end.
	cutShort chan struct{}
	cutOnce  sync.Once
	// unmounting is held while the kernel is asked to give the mount up.
	unmounting sync.Mutex
	// drained is closed when outcome is known.
	drained   chan struct{}
	outcome   Outcome
	extending sync.WaitGroup // asks the service manager for time until drained is closed
}

// run is a mount from its checks to its end. It takes the process over: signals,
// umask, working directory and the default logger are the mount's. ready is
// called once, when the mount can be used. The error is nil if everything was
// uploaded, a *[LeftError] if not, and any other if the mount never became ready.
func run(c Config, ready func(readyMount)) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	// A mount outlives the reader of its log. A handler that does nothing, unlike
	// SIG_IGN, is not inherited by programs that the daemon starts.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	// What is made from here on is this user's alone, the journal among it.
	umask := syscall.Umask(0o077)

	point, detached, err := c.prepare()
	if err != nil {
		return err
	}
	defer point.Close()
	dir, err := openStateDir(c.StateDir, c.MountPoint)
	if err != nil {
		return err
	}
	log, closeLog, err := c.openLog(dir)
	if err != nil {
		return errors.Join(err, dir.close())
	}
	slog.SetDefault(log)
	if detached {
		log.Info("took the place of a mount whose daemon was killed", "mount_point", c.MountPoint)
	}
	d := &daemon{
		config:   c,
		dir:      dir,
		log:      log,
		started:  time.Now(),
		disk:     diskMeter{dir: dir.file(treeDir)},
		mounted:  make(chan struct{}),
		ending:   make(chan struct{}),
		drained:  make(chan struct{}),
		cutShort: make(chan struct{}),
		umask:    umask,
	}
	d.drainTimeout.Store(int64(c.DrainTimeout))
	err = d.serve(point, ready, signals)
	var left *LeftError
	if err != nil && !c.Foreground && !errors.As(err, &left) {
		log.Error("mount failed", "mount_point", c.MountPoint, "error", err)
	}
	return errors.Join(err, dir.close(), closeLog())
}

// serve mounts, waits for an end, and ends.
func (d *daemon) serve(point *os.File, ready func(readyMount), signals <-chan os.Signal) error {
	// Relative paths are resolved; the daemon must not keep a filesystem busy.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	counters := metrics.New()
	d.hooks = startHooks(&d.config, d.umask, d.hookPoint, counters, d.log)
	parts, err := assemble(&d.config, d.dir, counters, d.fileEnded, d.log)
	if err != nil {
		d.hooks.close()
		return err
	}
	defer d.hooks.close()
	d.parts = parts
	// The socket comes before the mount, so that a mount without a listener is a dead one.
	control, err := serveControl(d.dir.path, handlers{device: d.device, status: d.report, retry: parts.retry, cancel: parts.uploader.Cancel, set: d.set, unmount: d.unmount}, d.log)
	if err != nil {
		return errors.Join(fmt.Errorf("control socket: %w", err), parts.close())
	}
	if err := d.serveHTTP(); err != nil {
		return errors.Join(err, control.close(), parts.close())
	}
	// The caller's umask is applied to what it asks for, and no other.
	syscall.Umask(0)
	err = parts.mount(&d.config, point, d.dir, d.log)
	if err = errors.Join(err, point.Close()); err != nil {
		return errors.Join(err, control.close(), d.closeHTTP(), parts.close())
	}
	close(d.mounted)
	d.log.Info("mounted", "mount_point", d.config.MountPoint, "state_dir", d.dir.path,
		"endpoint", d.config.endpoint().String(), "write_path", parts.server.WritePath(), "pid", os.Getpid())
	endedEarly := len(signals) > 0
	if !endedEarly {
		ready(readyMount{Notes: d.notes(), Page: d.page()})
	}
	d.await(signals)
	d.drain(signals)
	err = errors.Join(control.close(), d.closeHTTP(), parts.close())
	if err != nil {
		d.log.Warn("not everything ended cleanly", "error", err)
	}
	if n := len(d.outcome.Left); n > 0 {
		for _, p := range d.outcome.Left {
			d.log.Warn("left for the next mount", "path", p)
		}
		d.log.Warn("ended with work left", "files", n, "drain_timeout", time.Duration(d.drainTimeout.Load()))
	}
	if endedEarly {
		return errors.Join(d.outcome.Err(), errors.New("a signal ended the mount before it was ready"))
	}
	d.log.Info("ended", "failed", len(d.outcome.Failed), "interrupted", len(d.outcome.Interrupted),
		"earlier", len(d.outcome.Earlier.Failed)+len(d.outcome.Earlier.Interrupted))
	return d.outcome.Err()
}

// fileEnded takes in that a file is completed, has failed or was interrupted.
func (d *daemon) fileEnded(st *uploader.Status) {
	d.completed.add(st)
	d.hooks.add(st)
}

// hookPoint is the path of the mount for hooks, which may run before there is one: the
// uploader goes on with old files at once.
func (d *daemon) hookPoint() string {
	if d.device() == "" {
		return d.config.MountPoint
	}
	return d.point()
}

// await returns when no new work can reach the mount any more.
func (d *daemon) await(signals <-chan os.Signal) {
	served := make(chan struct{})
	go func() { // ends with the mount, or with the process if that comes first
		d.parts.server.Wait()
		close(served)
	}()
	by, signalled := "umount", false
	select {
	case <-served:
	case <-d.ending: // another mount namespace may still have a copy, which is dead from now on
	case sig := <-signals:
		by, signalled = sig.String(), true
	}
	if d.config.Foreground {
		notifySystemd("STOPPING=1", "STATUS=uploading what is pending")
		d.extending.Go(func() { extendStop(d.drained) })
	}
	if signalled {
		d.leave()
	}
	if d.unmountAsked.Load() {
		by = "uploadfs unmount"
	}
	d.log.Info("unmounted", "by", by)
	d.end()
}

// leave has the kernel give the mount up, even if it is in use. A mount that another
// one covers stays, and is dead once this process ends.
func (d *daemon) leave() {
	m := d.parts.server.Mounted()
	err := fusefs.Unmount(m, false)
	if err == nil || errors.Is(err, fusefs.ErrNotMounted) {
		return
	}
	d.log.Info("busy, so detached: what is open is served until the end", "error", err)
	// What the kernel holds of open files would end with this process.
	if err := syncMount(m); err != nil {
		d.log.Warn("what is written to open files may be incomplete", "error", err)
	}
	if err := fusefs.Unmount(m, true); err != nil && !errors.Is(err, fusefs.ErrNotMounted) {
		d.log.Warn("not unmounted", "error", err)
	}
}

// device is the filesystem that this daemon serves, "major:minor".
func (d *daemon) device() string {
	select {
	case <-d.mounted:
		return d.parts.server.Mounted().Device
	default:
		return ""
	}
}

// point is the path of the mount, which changes when a parent directory is renamed.
// It is the last one known where the mount is gone.
func (d *daemon) point() string {
	if m, err := fusefs.Current(d.parts.server.Mounted()); err == nil {
		return m.Point
	}
	return d.config.MountPoint
}

func (d *daemon) end() { d.endOnce.Do(func() { close(d.ending) }) }

// drain waits for pending uploads and notes what is left. A signal cuts it short;
// the next signal kills the daemon.
func (d *daemon) drain(signals <-chan os.Signal) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(d.drainTimeout.Load()))
	defer cancel()
	left := make(chan []string, 1)
	go func() { left <- d.parts.uploader.Drain(ctx) }()
	select {
	case d.outcome.Left = <-left:
	case sig := <-signals:
		d.log.Info("draining cut short", "by", sig.String())
		signal.Reset(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		cancel()
		d.outcome.Left = <-left
	case <-d.cutShort:
		d.log.Info("draining cut short", "by", "uploadfs unmount")
		cancel()
		d.outcome.Left = <-left
	}
	snapshot, err := d.parts.uploader.Find(uploader.Query{States: []state.State{state.Failed, state.Interrupted}})
	if err != nil {
		d.log.Error("what failed is not known", "error", err)
	}
	for _, f := range snapshot.Files {
		kept := &d.outcome.Kept
		if f.Earlier {
			kept = &d.outcome.Earlier
		}
		switch f.State {
		case state.Failed:
			kept.Failed = append(kept.Failed, f.Path)
		case state.Interrupted:
			kept.Interrupted = append(kept.Interrupted, f.Path)
		}
	}
	close(d.drained)
	d.extending.Wait()
}

// errNotReady is the answer to calls that come between the socket and the mount.
var errNotReady = errors.New("the mount is not ready yet: try again in a moment")

// unmount is the control socket's: it asks the kernel first, so that a busy
// mount stays as it was, and answers when everything is drained.
func (d *daemon) unmount(ctx context.Context, o UnmountOptions) (Outcome, error) {
	select {
	case <-d.mounted:
	default:
		return Outcome{}, errNotReady
	}
	if err := d.giveUp(o); err != nil {
		return Outcome{}, err
	}
	select {
	case <-d.drained:
		return d.outcome, nil
	case <-ctx.Done():
		return Outcome{}, context.Cause(ctx)
	}
}

// giveUp has the kernel give the mount up, unless it already has.
func (d *daemon) giveUp(o UnmountOptions) error {
	d.unmounting.Lock()
	defer d.unmounting.Unlock()
	select {
	case <-d.ending:
		if o.Timeout != nil {
			time.AfterFunc(*o.Timeout, func() { d.cutOnce.Do(func() { close(d.cutShort) }) })
		}
		return nil
	default:
	}
	d.unmountAsked.Store(true)
	if o.Timeout != nil {
		before := d.drainTimeout.Swap(int64(*o.Timeout))
		defer func() {
			select {
			case <-d.ending:
			default:
				d.drainTimeout.Store(before) // the mount stays as it was
			}
		}()
	}
	if o.Lazy {
		d.leave()
		d.end()
		return nil
	}
	err := fusefs.Unmount(d.parts.server.Mounted(), false)
	if err != nil && !errors.Is(err, fusefs.ErrNotMounted) {
		d.unmountAsked.Store(false)
		return err
	}
	d.end()
	return nil
}

// notes are what users of the mount should know now, one sentence each.
func (d *daemon) notes() []string {
	return slices.Concat(d.parts.server.Notes(), d.parts.keyCheck.notes())
}

// report is the control socket's view of the mount.
func (d *daemon) report(ctx context.Context, q uploader.Query) (Report, error) {
	select {
	case <-d.mounted:
	default:
		return Report{}, errNotReady
	}
	disk, err := d.disk.read(ctx)
	if err != nil {
		return Report{}, err
	}
	snapshot, err := d.parts.uploader.Find(q)
	if err != nil {
		return Report{}, err
	}
	rep := Report{
		MountPoint: d.point(),
		StateDir:   d.dir.path,
		Endpoint:   d.config.endpoint().String(),
		WritePath:  string(d.parts.server.WritePath()),
		PID:        os.Getpid(),
		Started:    d.started,
		Disk:       disk,
		Notes:      d.notes(),
		Paused:     d.parts.uploader.Paused(),
		Limit:      d.parts.limit.PerSecond(),
		Page:       d.page(),
		Snapshot:   snapshot,
	}
	rep.Next = nextPage(rep.Next)
	select {
	case <-d.ending:
		rep.Ending = true
	default:
	}
	return rep, nil
}
