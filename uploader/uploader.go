// Package uploader knows files as parts: which bytes of which file the API has,
// what is to be sent next, and what came of it.
//
// A [session] is one backing file's life from its first write to completed. The
// kernel's side of the mount tells it through a [Writer] what changes and what a
// close means; it sends the content through a [Backend] in parts, at the latest
// when it is committed, and earlier where the size can be known; and it publishes
// a [Status] that everybody can read without waiting. What must survive a crash
// is in the journal before the effect that it protects.
//
// The package knows nothing of FUSE, HTTP or JSON over the wire.
//
// # Locks
//
// Uploader.mu comes before session.mu, and digest.mu before session.mu too. No
// call of the Backend is made under any of them, and no two sessions are locked
// at once. The journal is called under session.mu, so that its records come in
// the order of the states; its commits do not wait for the disk.
//
// # Goroutines
//
// All belong to the Uploader, which waits for them in Close: a commit (one per
// session, bounded by the schedule), a feeder and the parts in flight (one transfer each,
// bounded by the schedule), the hashing, and the asking for a size.
package uploader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// Defaults of [Options].
const (
	DefaultPartSize     = api.MaxPart
	DefaultParallel     = 8
	DefaultPurpose      = "user_data"
	DefaultCloseTimeout = 10 * time.Minute
)

// Options say what an Uploader works with. All but Backend, Tree and StateDir
// have defaults.
type Options struct {
	Backend      api.Backend   // with retrying; see package retry
	Tree         *backing.Tree // stays the caller's; nil for an Uploader that only puts, see OpenPut
	StateDir     string        // the journal lives there
	PartSize     int64         // bytes of a chunk; 0 is auto: as large as can be, at the end so that all slots are busy
	Parallel     int           // large parts under way over all files
	SmallPart    int64         // bytes up to which a part is a small call; 0 is [api.SmallPart]
	Checksum     bool          // send the MD5 with Complete
	Purpose      string        // where no attribute says another
	Names        NamePolicy
	CloseTimeout time.Duration   // how long Commit waits without one acknowledged byte; 0 is for ever
	Background   bool            // no close waits
	Settle       time.Duration   // where none does, a file is sent when it has been closed and quiet for so long
	SyncAfter    time.Duration   // a closed file that waits so long is brought to the disk; 0 is DefaultSyncAfter
	SyncOnClose  bool            // Close brings the tree to the disk
	HeadStart    time.Duration   // how long Open waits until tree and journal are compared; 0 is DefaultHeadStart, below 0 not at all
	CompareAfter <-chan struct{} // what the comparison behind the mount waits for, in tests; nil for nothing
	BootID       string          // of the running kernel; "": not known, and then no earlier boot is this one
	Listing      ListingPolicy   // how the File of a lost answer to Complete is looked for
	Logger       *slog.Logger

	// Ended is told of each file that becomes completed, failed or interrupted, unless
	// nil. It is called under locks: it must neither wait nor call the Uploader.
	Ended func(*Status)
}

// Uploader uploads the files of one backing tree. All methods may be called
// concurrently, but none after Close. Writers may outlive it: a mount that was
// detached still serves what is open. Their changes fail then, and their closes
// say [Stopped].
type Uploader struct {
	opts    Options
	tree    *backing.Tree
	names   NamePolicy
	journal *journal.Journal
	log     *slog.Logger
	chunk   int64 // bytes of a chunk that goes while its file is written
	block   int64 // bytes under one generation; chunk, or smaller where parts may be

	ctx  context.Context // ends with Close
	stop context.CancelCauseFunc
	wg   sync.WaitGroup // every goroutine of ours

	opened    bool          // a tree, without an error
	recovery  *recovery     // the comparison of the tree with the journal
	headStart time.Duration // Options.HeadStart

	onUnreported atomic.Pointer[func(backing.Key)] // see OnUnreportedChange

	settle time.Duration // see settling; 0 where closes wait

	boot  string // boot ID, or what stands for one
	syncs pendingSyncs

	schedule  *scheduler // which call goes next
	flow      flow       // the rate at which all files together are sent
	turns     turns
	madeOften madeOften
	troubled  troubled

	mu       sync.Mutex // guards what follows, and refs of each session
	sessions map[backing.Key]*session
	putting  map[backing.Key]bool // files that a Put has open
	changed  chan struct{}        // closed and replaced when a session leaves the table or has less to do
}

// Open opens the journal in o.StateDir and goes on with what an earlier daemon
// left: files whose last close had been seen are sent, in the background; those
// that were still open are interrupted. It does not wait until all files have been
// compared with the journal. Nothing is touched if the journal is damaged or of a
// later version.
func Open(o Options) (*Uploader, error) {
	if o.Parallel == 0 {
		o.Parallel = DefaultParallel
	}
	if o.SmallPart == 0 {
		o.SmallPart = api.SmallPart
	}
	if o.Purpose == "" {
		o.Purpose = DefaultPurpose
	}
	if o.Names.HoldFor == 0 {
		o.Names.HoldFor = DefaultHoldFor
	}
	o.Listing = o.Listing.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	u := &Uploader{
		opts: o, tree: o.Tree, names: o.Names, log: o.Logger,
		chunk: o.PartSize, block: o.PartSize,
		schedule: newScheduler(o.Parallel),
		turns:    turns{most: o.Listing.Limit, taken: map[api.Spec]chan struct{}{}},
		sessions: map[backing.Key]*session{},
		putting:  map[backing.Key]bool{},
		changed:  make(chan struct{}),
		boot:     o.BootID,
		recovery: newRecovery(), headStart: o.HeadStart,
		syncs: pendingSyncs{after: o.SyncAfter, wake: make(chan struct{}, 1)},
	}
	u.recovery.follow = u.followMoves
	if o.PartSize == 0 {
		u.chunk, u.block = api.MaxPart, api.MinPart
	}
	if o.Background {
		u.settle = o.Settle
	}
	if u.boot == "" {
		u.boot = "unknown since " + time.Now().Format(time.RFC3339Nano)
	}
	if u.syncs.after == 0 {
		u.syncs.after = DefaultSyncAfter
	}
	if u.headStart == 0 {
		u.headStart = DefaultHeadStart
	}
	u.ctx, u.stop = context.WithCancelCause(context.Background())
	var err error
	if u.journal, err = journal.Open(o.StateDir, o.Logger); err != nil {
		return nil, err
	}
	if o.Tree == nil {
		err = u.journal.Forget(time.Now().Add(-putRemembered))
	} else {
		u.wg.Go(u.syncPending)
		err = u.startRecovery()
	}
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	u.opened = o.Tree != nil
	return u, nil
}

// Close stops all work, waits until it has stopped, and closes the journal. What
// is not completed goes on when the tree is opened again. With Options.SyncOnClose it
// also waits until the tree is on the disk, and records that.
func (u *Uploader) Close() error {
	u.stop(&api.Error{Kind: api.Stopped, Message: "unmounted before it was uploaded; it goes on at the next mount"})
	u.recovery.stop()
	u.mu.Lock()
	var all []*session
	for _, s := range u.sessions {
		all = append(all, s)
	}
	u.mu.Unlock()
	for _, s := range all {
		// A goroutine is started under mu, after a look at ctx. So none is
		// started any more past this loop.
		s.mu.Lock()
		s.stopDeferring()
		s.settling.stop()
		if s.xfer != nil {
			s.xfer.end(context.Cause(u.ctx))
		}
		s.answer(^uint64(0), context.Cause(u.ctx))
		s.forgetCommit()
		s.mu.Unlock()
	}
	u.wg.Wait()
	if u.opened && u.opts.SyncOnClose {
		if err := u.syncTree(); err != nil {
			u.log.Warn("not recorded as on the disk; after a restart of the machine it is compared", "error", err)
		}
	}
	return u.journal.Close()
}

// OnUnreportedChange sets what is called when polling has found that a file changed
// without a request to the daemon. fn is called under locks: it must neither wait nor
// call the Uploader.
func (u *Uploader) OnUnreportedChange(fn func(key backing.Key)) { u.onUnreported.Store(&fn) }

// reportChange reports a change of the session's file that no request has made.
func (s *session) reportChange() {
	if fn := s.u.onUnreported.Load(); fn != nil {
		(*fn)(s.key)
	}
}

// refKey finds the session of a file, or makes it from what the journal knows, and
// keeps it in the table until unref. path is its name, "" for that of the journal.
func (u *Uploader) refKey(key backing.Key, path string) (*session, error) {
	if err := u.look(key, path); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sessions[key]
	if s == nil {
		s = newSession(u, key)
		r, err := u.journal.Get(key)
		if err != nil {
			return nil, err
		}
		switch {
		case r != nil && u.tree != nil:
			s.takeIn(r)
		case r != nil:
			s.rec, s.content.size = *r, r.Size // OpenPut decides
		}
		if path != "" {
			s.rec.Path = path
		}
		s.publish()
		u.sessions[key] = s
	}
	s.refs++
	return s, nil
}

// ref keeps a session that is in the table there until unref.
func (u *Uploader) ref(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.refs++
}

// unref ends what refKey or ref began. A session without work leaves the table: the journal has it.
func (u *Uploader) unref(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.refs--
	s.mu.Lock()
	defer s.mu.Unlock()
	// It may have left already, and another have come for the same file.
	if s.refs == 0 && s.idle() && u.sessions[s.key] == s {
		delete(u.sessions, s.key)
		if s.xfer != nil && u.tree != nil {
			s.xfer.end(errIdle) // the next session of the file takes its Upload up again
		}
	}
	close(u.changed)
	u.changed = make(chan struct{})
}

// errIdle ends a transfer in memory, and not the Upload.
var errIdle = errors.New("nothing is to be sent")

// idle reports whether the session has neither a writer nor work. mu is held.
func (s *session) idle() bool {
	if s.writers > 0 || s.file.isOpen() || s.commits.running {
		return false
	}
	if s.unrecorded && !s.unlinked && s.put == nil {
		return false // what the journal has is not the status
	}
	switch s.rec.State {
	case state.Completed, state.Empty, state.Excluded:
		return true
	case state.Interrupted:
		return !s.lost.any() && len(s.commits.waiters) == 0
	}
	return s.unlinked || s.put != nil
}

// Retry tries a file again that failed, or sends one that was interrupted as it
// is. The error says why there is nothing to try.
func (u *Uploader) Retry(path string) error {
	info, err := u.tree.Stat(path)
	if err != nil {
		return api.LocalError("retry", err)
	}
	key := info.Key
	s, err := u.refKey(key, path)
	if err != nil {
		return err
	}
	defer u.unref(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	if s.writers == 0 && !s.commits.running {
		// It may have changed while it was not mounted.
		if info, err = u.tree.Stat(path); err != nil || info.Key != key {
			return api.LocalError("retry", errors.Join(err, fs.ErrNotExist))
		}
		s.content.size = info.Size
		if err := s.openSinceEarlierMount(); err != nil {
			return fmt.Errorf("retry: %w", err)
		}
	}
	d := s.decide(eventRetried)
	if d.to != "" && s.rec.State != state.Held {
		s.recordClose() // the user speaks for the content as it is now
	}
	s.commits.forced = d.to == state.Uploading
	s.leftFailed = false
	s.sendAsNamed(d)
	if d.err != nil {
		return fmt.Errorf("retry: %w", d.err)
	}
	s.sendSettling()
	return nil
}

// Drain waits until no file is on its way to the API any more, or ctx ends, and
// returns the paths that are left. Held files, and those that settle, are sent at once:
// after a drain no program can rename or change them any more.
func (u *Uploader) Drain(ctx context.Context) []string {
	for {
		u.mu.Lock()
		changed := u.changed
		var left []string
		for _, s := range u.sessions {
			s.mu.Lock()
			s.observer.poll()
			s.sendDeferred()
			s.sendSettling()
			// The File of a removed file is named once Complete has answered.
			if s.commits.completing || !s.unlinked && (s.commits.running || s.rec.State.Pending()) {
				left = append(left, s.rec.Path)
			}
			s.mu.Unlock()
		}
		u.mu.Unlock()
		if len(left) == 0 && !u.comparing() {
			return u.notCompared()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			left = append(left, u.notCompared()...)
			slices.Sort(left)
			return slices.Compact(left)
		}
	}
}
