package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"uploadfs/uploader/state"
)

// daemon is one running mount.
type daemon struct {
	config  Config
	dir     *stateDir
	log     *slog.Logger
	parts   *assembly
	started time.Time
	disk    diskMeter

	// mounted is closed when parts.server is there.
	mounted chan struct{}
	// ending is closed when the kernel has given the mount up.
	ending  chan struct{}
	endOnce sync.Once
	asked   atomic.Bool // a client has asked for the end
	// unmounting is held while the kernel is asked to give the mount up.
	unmounting sync.Mutex
	// drained is closed when outcome is known.
	drained chan struct{}
	outcome Outcome
}

// run is a mount from its checks to its end. It takes the process over: signals,
// umask, working directory and the default logger are the mount's. ready is
// called once, when the mount can be used, with what its users should know. The error is nil if everything was
// uploaded, a *[LeftError] if not, and any other if the mount never became ready.
func run(c Config, ready func(notes []string)) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	// What is made from here on is this user's alone, the journal among it.
	syscall.Umask(0o077)

	detached, err := c.prepare()
	if err != nil {
		return err
	}
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
		config:  c,
		dir:     dir,
		log:     log,
		started: time.Now(),
		disk:    diskMeter{dir: dir.file(treeDir)},
		mounted: make(chan struct{}),
		ending:  make(chan struct{}),
		drained: make(chan struct{}),
	}
	err = d.serve(ready, signals)
	var left *LeftError
	if err != nil && !c.Foreground && !errors.As(err, &left) {
		log.Error("mount failed", "mount_point", c.MountPoint, "error", err)
	}
	return errors.Join(err, dir.close(), closeLog())
}

// serve mounts, waits for an end, and ends.
func (d *daemon) serve(ready func(notes []string), signals <-chan os.Signal) error {
	// Relative paths are resolved; the daemon must not keep a filesystem busy.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	parts, err := assemble(&d.config, d.dir, d.log)
	if err != nil {
		return err
	}
	d.parts = parts
	// The socket comes before the mount, so that a mount without a listener is a dead one.
	control, err := serveControl(d.dir.path, handlers{status: d.report, retry: parts.uploader.Retry, unmount: d.unmount}, d.log)
	if err != nil {
		return errors.Join(fmt.Errorf("control socket: %w", err), parts.close())
	}
	// The kernel has already applied the caller's umask to what it asks for.
	syscall.Umask(0)
	if err := parts.mount(&d.config, d.dir, d.log); err != nil {
		return errors.Join(err, control.close(), parts.close())
	}
	close(d.mounted)
	d.log.Info("mounted", "mount_point", d.config.MountPoint, "state_dir", d.dir.path,
		"endpoint", d.config.endpoint().String(), "write_path", parts.server.WritePath(), "pid", os.Getpid())
	stillborn := len(signals) > 0
	if !stillborn {
		ready(parts.server.Notes())
	}
	d.await(signals)
	d.drain(signals)
	err = errors.Join(control.close(), parts.close())
	if err != nil {
		d.log.Warn("not everything ended cleanly", "error", err)
	}
	if n := len(d.outcome.Left); n > 0 {
		for _, p := range d.outcome.Left {
			d.log.Warn("left for the next mount", "path", p)
		}
		d.log.Warn("ended with work left", "files", n, "drain_timeout", d.config.DrainTimeout)
		return &LeftError{d.outcome.Left}
	}
	if stillborn {
		return errors.New("told to end before the mount was ready")
	}
	d.log.Info("ended", "failed", len(d.outcome.Failed), "interrupted", len(d.outcome.Interrupted))
	return nil
}

// await returns when no new work can reach the mount any more.
func (d *daemon) await(signals <-chan os.Signal) {
	served := make(chan struct{})
	go func() { // ends with the mount, or with the process if that comes first
		d.parts.server.Wait()
		close(served)
	}()
	by := "umount"
	select {
	case <-served:
	case <-d.ending: // another mount namespace may still have a copy, which nobody serves any more
	case sig := <-signals:
		by = sig.String()
		if err := unmountNow(d.config.MountPoint); err != nil {
			d.log.Info("busy, so detached: what is open is served until the end", "error", err)
			// What the kernel holds of open files would end with this process.
			if err := syncMount(d.config.MountPoint); err != nil {
				d.log.Warn("what is written to open files may be incomplete", "error", err)
			}
			if err := detach(d.config.MountPoint); err != nil {
				d.log.Warn("not unmounted", "error", err)
			}
		}
	}
	if d.asked.Load() {
		by = "uploadfs unmount"
	}
	d.log.Info("unmounted", "by", by)
	d.end()
	if d.config.Foreground {
		notifySystemd("STOPPING=1")
	}
}

func (d *daemon) end() { d.endOnce.Do(func() { close(d.ending) }) }

// drain waits for what is pending and notes what is left. A signal cuts it short;
// the one after that kills, for whoever has lost patience.
func (d *daemon) drain(signals <-chan os.Signal) {
	ctx, cancel := context.WithTimeout(context.Background(), d.config.DrainTimeout)
	defer cancel()
	left := make(chan []string, 1)
	go func() { left <- d.parts.uploader.Drain(ctx) }()
	select {
	case d.outcome.Left = <-left:
	case sig := <-signals:
		d.log.Info("draining cut short", "by", sig.String())
		signal.Reset()
		cancel()
		d.outcome.Left = <-left
	}
	snapshot, err := d.parts.uploader.Snapshot()
	if err != nil {
		d.log.Error("what failed is not known", "error", err)
	}
	for _, f := range snapshot.Files {
		switch f.State {
		case state.Failed:
			d.outcome.Failed = append(d.outcome.Failed, f.Path)
		case state.Interrupted:
			d.outcome.Interrupted = append(d.outcome.Interrupted, f.Path)
		}
	}
	close(d.drained)
}

// errNotReady is the answer to calls that come between the socket and the mount.
var errNotReady = errors.New("the mount is not ready yet: try again in a moment")

// unmount is the control socket's: it asks the kernel first, so that a busy
// mount stays as it was, and answers when everything is drained.
func (d *daemon) unmount(ctx context.Context) (Outcome, error) {
	select {
	case <-d.mounted:
	default:
		return Outcome{}, errNotReady
	}
	if err := d.giveUp(); err != nil {
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
func (d *daemon) giveUp() error {
	d.unmounting.Lock()
	defer d.unmounting.Unlock()
	select {
	case <-d.ending:
		return nil
	default:
	}
	d.asked.Store(true)
	if err := unmountNow(d.config.MountPoint); err != nil {
		d.asked.Store(false)
		return err
	}
	d.end()
	return nil
}

// report is the control socket's view of the mount.
func (d *daemon) report(ctx context.Context) (Report, error) {
	select {
	case <-d.mounted:
	default:
		return Report{}, errNotReady
	}
	disk, err := d.disk.read(ctx)
	if err != nil {
		return Report{}, err
	}
	snapshot, err := d.parts.uploader.Snapshot()
	if err != nil {
		return Report{}, err
	}
	rep := Report{
		MountPoint: d.config.MountPoint,
		StateDir:   d.dir.path,
		Endpoint:   d.config.endpoint().String(),
		WritePath:  string(d.parts.server.WritePath()),
		PID:        os.Getpid(),
		Started:    d.started,
		Disk:       disk,
		Notes:      d.parts.server.Notes(),
		Snapshot:   snapshot,
	}
	select {
	case <-d.ending:
		rep.Ending = true
	default:
	}
	return rep, nil
}
