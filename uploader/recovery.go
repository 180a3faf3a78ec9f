package uploader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// DefaultHeadStart is how long Open waits for the comparison of the tree with the
// journal.
const DefaultHeadStart = 500 * time.Millisecond

// recoveryPage is how many records or files the comparison holds in memory.
const recoveryPage = 500

// recovery is the comparison of the tree with the journal that a mount begins with.
// It goes on while the mount is used: look compares a file before a request of the
// mount can change it, or is told of its state. Each file is compared once.
//
// The files with work go first. All records follow in the order of their keys, and
// those whose file is not at its path are lost until a walk of the tree finds it. A
// last walk finds files without a record.
type recovery struct {
	over     atomic.Bool   // every file has been compared
	ended    chan struct{} // closed when the comparison has ended, with or without an error
	compared atomic.Int64  // records so far

	mu     sync.Mutex // guards what follows
	err    error      // why it ended early
	total  int        // records when it began
	cursor backing.Key
	early  map[backing.Key]bool          // compared, and beyond the cursor or without a record
	lost   map[backing.Key]string        // the path of a record whose file is not there
	busy   map[backing.Key]chan struct{} // being compared; closed at the end
	moved  []string                      // directories with a new path, which a walk may have missed
	moves  []move                        // of directories, since the comparison began

	// follow gives a file that has been compared its path after these moves.
	follow func(key backing.Key, moves []move)

	// renames is held for reading from a rename until directoryMoved knows of it, and
	// is taken before mu.
	renames sync.RWMutex
}

// move is a directory's change of path.
type move struct{ from, to string }

func newRecovery() *recovery {
	return &recovery{
		ended: make(chan struct{}), cursor: journal.First,
		early: map[backing.Key]bool{}, lost: map[backing.Key]string{}, busy: map[backing.Key]chan struct{}{},
	}
}

// comparison is that of one file, which is reserved until it ends.
type comparison struct {
	r      *recovery
	key    backing.Key
	passed bool // the cursor has passed the key: if the file has a record, it was compared
	moves  int  // how many there were when it began
	done   chan struct{}
}

// begin reserves a file, and waits while another has it. It returns nil if the file has
// been compared.
func (r *recovery) begin(ctx context.Context, key backing.Key) (*comparison, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.over.Load() || r.early[key] {
			return nil, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx) // the next mount compares it
		}
		other := r.busy[key]
		if other == nil {
			break
		}
		r.mu.Unlock()
		<-other
		r.mu.Lock()
	}
	_, lost := r.lost[key]
	c := &comparison{r: r, key: key, passed: !lost && !keyLess(r.cursor, key), moves: len(r.moves), done: make(chan struct{})}
	r.busy[key] = c.done
	return c, nil
}

// end ends the comparison. Without an error the file is not compared again.
func (c *comparison) end(err error) {
	c.finally(func() {
		if err == nil {
			c.r.early[c.key] = true
			delete(c.r.lost, c.key)
		}
	})
}

// lose ends the comparison of a record whose file is not at its path.
func (c *comparison) lose(path string) {
	c.finally(func() { c.r.lost[c.key] = path })
}

// cancel ends the comparison as if there had been none.
func (c *comparison) cancel() { c.finally(func() {}) }

func (c *comparison) finally(note func()) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	for c.moves < len(c.r.moves) {
		// It may have been found by a path that a directory has lost since.
		since := c.r.moves[c.moves:]
		c.moves = len(c.r.moves)
		c.r.mu.Unlock()
		c.r.follow(c.key, since)
		c.r.mu.Lock()
	}
	if !c.r.over.Load() {
		note()
	}
	delete(c.r.busy, c.key)
	close(c.done)
}

// isLost reports whether the file of the record has not been found so far.
func (r *recovery) isLost(key backing.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, lost := r.lost[key]
	return lost
}

// pass moves the cursor beyond the records, which have been compared.
func (r *recovery) pass(records []*journal.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cursor = records[len(records)-1].Key
	for _, rec := range records {
		delete(r.early, rec.Key)
	}
	r.compared.Add(int64(len(records)))
}

// passAll moves the cursor beyond all keys: a file that has a record was compared, or it
// is lost.
func (r *recovery) passAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cursor = backing.Key{Ino: 1<<63 - 1, Birth: 1<<63 - 1}
}

// directoryMoved takes in moves, one after the other, and lets a walk that is under way
// see what is below the new paths: it may have come from where the walk has not been to
// where it was. It is called before the paths of the files below are changed.
func (r *recovery) directoryMoved(moves []move, to ...string) {
	if r.over.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = append(r.moved, to...)
	r.moves = append(r.moves, moves...)
}

// movedMeanwhile are the directories that have been moved since it was last asked. It
// waits for a rename that is under way.
func (r *recovery) movedMeanwhile() (to []string) {
	r.renames.Lock()
	defer r.renames.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	to, r.moved = r.moved, nil
	return to
}

// progress is how far the comparison has got, nil when it is over.
func (r *recovery) progress() *Comparing {
	if r.over.Load() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Comparing{Compared: min(int(r.compared.Load()), r.total), Records: r.total, Error: api.OneLine(r.err)}
}

// finish ends the comparison.
func (r *recovery) finish(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; err == nil {
		r.over.Store(true)
		r.early, r.lost, r.moved = nil, nil, nil // moves stay while a comparison may end
	}
	close(r.ended)
}

// stop returns when no file is being compared. None begins any more: the Uploader's
// context has ended.
func (r *recovery) stop() {
	for {
		r.mu.Lock()
		var one chan struct{}
		for _, one = range r.busy {
			break
		}
		r.mu.Unlock()
		if one == nil {
			return
		}
		<-one
	}
}

// keyLess orders keys as the journal does.
func keyLess(a, b backing.Key) bool {
	return int64(a.Ino) < int64(b.Ino) || a.Ino == b.Ino && a.Birth < b.Birth
}

// startRecovery begins the comparison and gives it a head start: a small tree is
// compared before the mount is ready. So is a copied one, since only a look at the
// whole of it tells which record is of which file.
func (u *Uploader) startRecovery() error {
	copied, err := u.treeIsCopy()
	if err != nil {
		return err
	}
	began := time.Now()
	u.wg.Go(func() {
		if u.opts.CompareAfter != nil {
			select {
			case <-u.opts.CompareAfter:
			case <-u.ctx.Done():
			}
		}
		err := u.recoverAll()
		if err != nil && u.ctx.Err() == nil {
			u.log.Error("the tree is not compared with the journal as a whole; each file is when it is used", "error", err)
		}
		u.recovery.finish(err)
		u.announce()
		if err == nil {
			u.log.Info("tree compared with the journal", "files", u.recovery.compared.Load(), "took", time.Since(began).Round(time.Millisecond))
			err = u.compareCompleted()
		}
		if err != nil && u.ctx.Err() == nil {
			u.log.Error("completed files not compared", "error", err)
		}
	})
	if copied {
		<-u.recovery.ended
		return u.recovery.err
	}
	head := time.NewTimer(u.headStart)
	defer head.Stop()
	select {
	case <-u.recovery.ended:
		return u.recovery.err
	case <-head.C:
		return nil
	}
}

// comparing reports whether the comparison may still find files that are to be sent.
func (u *Uploader) comparing() bool {
	if u.tree == nil {
		return false
	}
	select {
	case <-u.recovery.ended:
		return false
	default:
		return true
	}
}

// notCompared are the paths of files that were on their way when the last mount ended,
// while not all of them have been compared.
func (u *Uploader) notCompared() (paths []string) {
	if u.tree == nil || u.recovery.over.Load() {
		return nil
	}
	for _, s := range []state.State{state.Uploading, state.Retrying, state.Held} {
		err := u.eachIn(s, func(r *journal.Record) error {
			paths = append(paths, r.Path)
			return nil
		})
		if err != nil {
			u.log.Error("what is left is not known", "error", err)
		}
	}
	return paths
}

// announce wakes what waits for the table of sessions.
func (u *Uploader) announce() {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.changed)
	u.changed = make(chan struct{})
}

// treeIsCopy reports whether the tree is a copy of the one that the journal is of: at
// the paths of most records, and there are enough of them to look at, are other files.
// Without birth times that cannot be told.
func (u *Uploader) treeIsCopy() (bool, error) {
	page, err := u.journal.After(journal.First, recoveryPage)
	if err != nil {
		return false, err
	}
	same, other := 0, 0
	for _, r := range page {
		if r.Key.Birth == 0 {
			return true, nil
		}
		info, err := u.tree.Stat(r.Path)
		switch {
		case err != nil || !info.Regular():
		case info.Key == r.Key:
			same++
		default:
			other++
		}
	}
	return other > same, nil
}

// recoverAll compares all files that have not been compared when they were used.
func (u *Uploader) recoverAll() error {
	total, err := u.journal.Count()
	if err != nil {
		return err
	}
	u.recovery.mu.Lock()
	u.recovery.total = total
	u.recovery.mu.Unlock()
	for _, s := range []state.State{state.Uploading, state.Retrying, state.Held, state.Failed, state.Writing} {
		err := u.eachIn(s, u.recoverRecord)
		if err != nil {
			return err
		}
	}
	err = u.eachRecord(func(key backing.Key) ([]*journal.Record, error) {
		return u.journal.After(key, recoveryPage)
	}, u.recoverRecord, u.recovery.pass)
	if err == nil {
		u.recovery.passAll()
		err = u.recoverLost()
	}
	if err == nil {
		err = u.walkAll(u.recoverUnknown)
	}
	return err
}

// eachRecord calls do for each record of the pages that next returns after a key, and
// passed after each page.
func (u *Uploader) eachRecord(next func(key backing.Key) ([]*journal.Record, error), do func(*journal.Record) error, passed func([]*journal.Record)) error {
	for key := journal.First; ; {
		page, err := next(key)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, r := range page {
			if u.ctx.Err() != nil {
				return context.Cause(u.ctx)
			}
			if err := do(r); err != nil {
				return err
			}
		}
		if key = page[len(page)-1].Key; passed != nil {
			passed(page)
		}
	}
}

// eachIn calls do for each record of files in a state.
func (u *Uploader) eachIn(in state.State, do func(*journal.Record) error) error {
	return u.eachRecord(func(key backing.Key) ([]*journal.Record, error) {
		return u.journal.AfterIn(in, key, recoveryPage)
	}, do, nil)
}

// recoverRecord goes on with the file of a record, if it is at its path.
func (u *Uploader) recoverRecord(r *journal.Record) error {
	c, err := u.recovery.begin(u.ctx, r.Key)
	if c == nil {
		return err
	}
	f, there := u.foundAt(r, r.Path)
	if !there {
		c.lose(r.Path)
		return nil
	}
	err = u.resume(r, f)
	c.end(err)
	return err
}

// foundAt is the file of the record at a path, if it is there.
func (u *Uploader) foundAt(r *journal.Record, path string) (f found, there bool) {
	info, err := u.tree.Stat(path)
	if err != nil || !info.Regular() || info.Key != r.Key {
		return found{}, false
	}
	f = found{path, info}
	return f, u.sameFile(r, f)
}

// walkAll calls fn for the files of the tree in pages, and for those of directories
// that were moved meanwhile once more.
func (u *Uploader) walkAll(fn func([]found) error) error {
	r := u.recovery
	r.mu.Lock()
	r.moved = nil
	r.mu.Unlock()
	var page []found
	flush := func() error {
		defer func() { page = page[:0] }()
		return fn(page)
	}
	for below := []string{""}; len(below) > 0; {
		for _, dir := range below {
			err := u.tree.WalkBelow(dir, func(rel string, info backing.Info) error {
				if u.ctx.Err() != nil {
					return context.Cause(u.ctx)
				}
				if page = append(page, found{rel, info}); len(page) < recoveryPage {
					return nil
				}
				return flush()
			})
			if err == nil {
				err = flush()
			}
			if err != nil {
				return fmt.Errorf("backing tree: %w", err)
			}
		}
		below = r.movedMeanwhile()
	}
	return nil
}

// recoverLost finds the files of records that are not at their paths. A record whose
// file is nowhere is of the file that is at its path now (a restored one), if that has
// no other, and else is deleted.
func (u *Uploader) recoverLost() error {
	r := u.recovery
	r.mu.Lock()
	n := len(r.lost)
	r.mu.Unlock()
	if n == 0 {
		return nil
	}
	err := u.walkAll(func(page []found) error {
		for _, f := range page {
			if !r.isLost(f.info.Key) {
				continue
			}
			if err := u.recoverMoved(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return u.rekeyLost()
}

// recoverMoved goes on with the file of a lost record, which has been found.
func (u *Uploader) recoverMoved(f found) error {
	c, err := u.recovery.begin(u.ctx, f.info.Key)
	if c == nil {
		return err
	}
	r, err := u.journal.Get(f.info.Key)
	if err == nil && r != nil {
		var there bool
		if f, there = u.foundAt(r, f.path); there {
			err = u.resume(r, f)
			c.end(err)
			return err
		}
	}
	c.cancel()
	return err
}

// rekeyLost gives the lost records to the files at their paths, and deletes the others.
func (u *Uploader) rekeyLost() (err error) {
	r := u.recovery
	r.mu.Lock()
	lost := maps.Clone(r.lost)
	r.mu.Unlock()
	reserved := map[backing.Key]*comparison{}
	defer func() {
		for _, c := range reserved {
			c.end(err)
		}
	}()
	reserve := func(key backing.Key) error {
		c, err := r.begin(u.ctx, key)
		if c != nil {
			reserved[key] = c
		}
		return err
	}
	moves := map[backing.Key]backing.Key{}
	taken := map[backing.Key]bool{}
	for key, path := range lost {
		to, err := u.heir(path, lost)
		if err != nil {
			return err
		}
		if to == nil || taken[*to] {
			continue
		}
		moves[key], taken[*to] = *to, true
	}
	// Files without a record come first, and all records after them. A request takes a
	// file and then the record that it may have, so neither waits for the other.
	for to := range taken {
		if _, lost := lost[to]; lost {
			continue
		}
		if err := reserve(to); err != nil {
			return err
		}
	}
	for key := range lost {
		if err := reserve(key); err != nil {
			return err
		}
	}
	maps.DeleteFunc(moves, func(key, to backing.Key) bool { return reserved[key] == nil || reserved[to] == nil })
	// What has no file any more must not be in another one's way.
	for key := range lost {
		if _, moves := moves[key]; moves || reserved[key] == nil {
			continue
		}
		if err := u.journal.Delete(key); err != nil {
			return err
		}
	}
	return u.rekey(moves)
}

// heir is the file at the path of a lost record, nil if there is none that has no
// record of its own.
func (u *Uploader) heir(path string, lost map[backing.Key]string) (*backing.Key, error) {
	info, err := u.tree.Stat(path)
	if err != nil || !info.Regular() {
		return nil, nil
	}
	if _, lost := lost[info.Key]; lost {
		return &info.Key, nil
	}
	own, err := u.journal.StateOf(info.Key)
	if err != nil || own != "" {
		return nil, err
	}
	return &info.Key, nil
}

// rekey gives the records of files that were copied or restored the keys that the
// files have now, and goes on with them. Whether a file fits its record is decided as
// for any other. All keys are reserved.
func (u *Uploader) rekey(moves map[backing.Key]backing.Key) error {
	if len(moves) == 0 {
		return nil
	}
	u.log.Info("the tree is a copy: files are known by their paths", "files", len(moves))
	if err := u.journal.Rekey(moves); err != nil {
		return err
	}
	for _, to := range moves {
		r, err := u.journal.Get(to)
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		f, there := u.foundAt(r, r.Path)
		if !there {
			continue // removed since
		}
		if err := u.resume(r, f); err != nil {
			return err
		}
	}
	return nil
}

// recoverUnknown keeps the files of a page that have no record.
func (u *Uploader) recoverUnknown(page []found) error {
	var keys []backing.Key
	for _, f := range page {
		if f.info.Size > 0 {
			keys = append(keys, f.info.Key)
		}
	}
	recorded, err := u.journal.WithNumbers(keys)
	if err != nil {
		return err
	}
	known := map[backing.Key]bool{}
	for _, key := range recorded {
		known[key] = true
	}
	unknown := slices.DeleteFunc(page, func(f found) bool {
		skip := f.info.Size == 0 || known[f.info.Key]
		known[f.info.Key] = true // by one of its names
		return skip
	})
	return u.keepUnknown(unknown)
}

// keepUnknown makes files interrupted that have no record. No record is lost any more
// that could be one of theirs.
func (u *Uploader) keepUnknown(page []found) (err error) {
	var begun []*comparison
	defer func() {
		for _, c := range begun {
			c.cancel() // the cursor has passed those that have a record now
		}
	}()
	var records []*journal.Record
	for _, f := range page {
		c, err := u.recovery.begin(u.ctx, f.info.Key)
		if err != nil {
			return err
		}
		if c == nil {
			continue
		}
		begun = append(begun, c)
		r := &journal.Record{Key: f.info.Key, State: state.Empty, Since: time.Now()}
		has, err := u.journal.StateOf(r.Key) // since the page was read
		if err != nil {
			return err
		}
		if now, there := u.foundAt(r, f.path); there && has == "" {
			u.interrupted(r, now, reasonNoRecord)
			records = append(records, r)
		}
	}
	if err := u.journal.PutAll(records); err != nil {
		return err
	}
	return u.reportKept(records...)
}

// Recover compares a file with its record, if the mount has not done so yet. It
// precedes an open for writing: a descriptor of the daemon's that can write could not
// be told from that of a program which an earlier mount left.
func (u *Uploader) Recover(key backing.Key, path string) error { return u.look(key, path) }

// look compares the file with this key, which has the name path, with its record,
// unless that has been done. Where a comparison of it is under way, look waits for it.
func (u *Uploader) look(key backing.Key, path string) error {
	if u.tree == nil || u.recovery.over.Load() {
		return nil
	}
	c, err := u.recovery.begin(u.ctx, key)
	if c == nil {
		return err
	}
	r, err := u.journal.Get(key)
	if err != nil || r != nil && c.passed {
		c.cancel()
		return err
	}
	info, statErr := u.tree.Stat(path)
	named := statErr == nil && info.Key == key && info.Regular()
	switch {
	case r == nil && named:
		err = u.lookUnrecorded(found{path, info})
	case r != nil:
		f, there := u.foundAt(r, r.Path)
		if !there {
			f, there = u.foundAt(r, path)
		}
		if !there {
			c.cancel() // where it is, is not known
			return nil
		}
		err = u.resume(r, f)
	}
	c.end(err)
	return err
}

// forgetLook says that the file has no name any more, and need not be compared.
func (u *Uploader) forgetLook(key backing.Key) {
	if u.tree == nil || u.recovery.over.Load() {
		return
	}
	if c, err := u.recovery.begin(u.ctx, key); c != nil && err == nil {
		c.end(nil)
	}
}

// lookUnrecorded decides about a file that has no record of its own. Its key is
// reserved.
func (u *Uploader) lookUnrecorded(f found) error {
	there, err := u.journal.AtPath(f.path)
	if err != nil {
		return err
	}
	for _, key := range there {
		if key == f.info.Key {
			continue
		}
		if taken, err := u.takeRecord(key, f); taken || err != nil {
			return err
		}
	}
	if f.info.Size == 0 {
		return nil
	}
	return u.keep(&journal.Record{Key: f.info.Key, State: state.Empty, Since: time.Now()}, f, reasonNoRecord)
}

// takeRecord gives the file the record of another one that was at its path, if that
// has no name any more.
func (u *Uploader) takeRecord(key backing.Key, f found) (taken bool, err error) {
	c, err := u.recovery.begin(u.ctx, key)
	if c == nil {
		return false, err
	}
	defer func() { c.end(err) }()
	if c.passed {
		return false, nil // its file has been found
	}
	elsewhere, err := u.tree.Find(key, f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, u.rekey(map[backing.Key]backing.Key{key: f.info.Key})
	case err != nil:
		return false, err
	}
	r, err := u.journal.Get(key)
	if err != nil || r == nil {
		return false, err
	}
	if at, there := u.foundAt(r, elsewhere); there {
		err = u.resume(r, at)
	}
	return false, err
}

// followMoves gives a file the path that it has after directories were moved, where it
// was compared under an earlier one. Its key is reserved.
func (u *Uploader) followMoves(key backing.Key, moves []move) {
	if s := u.refInMemory(key); s != nil {
		defer u.unref(s)
		s.mu.Lock()
		defer s.mu.Unlock()
		if path, moved := u.movedPath(key, s.rec.Path, moves); moved && !s.unlinked {
			s.rec.Path = path
			s.save()
			s.publish()
			s.renamed()
		}
		return
	}
	r, err := u.journal.Get(key)
	if err == nil && r != nil {
		if path, moved := u.movedPath(key, r.Path, moves); moved {
			r.Path = path
			err = u.journal.Put(r)
		}
	}
	if err != nil {
		u.log.Error("new name not recorded", "key", key, "error", err)
	}
}

// movedPath is where the file is that was at path before the moves; moved is false if
// it is still there, or is not found.
func (u *Uploader) movedPath(key backing.Key, path string, moves []move) (now string, moved bool) {
	is := func(path string) bool {
		info, err := u.tree.Stat(path)
		return err == nil && info.Key == key
	}
	if is(path) {
		return path, false
	}
	for _, m := range moves {
		if rebased, ok := rebase(path, m.from, m.to); ok {
			path, moved = rebased, true
		}
	}
	return path, moved && is(path)
}

// compareCompleted compares local copies that a power cut may have damaged with what
// was sent, one after the other, until the Uploader is closed. Those that were not
// compared by then are compared by the next mount.
func (u *Uploader) compareCompleted() error {
	compared := 0
	err := u.eachIn(state.Completed, func(r *journal.Record) error {
		if r.Boot == u.boot && r.Ctime != 0 {
			return nil
		}
		f, there := u.foundAt(r, r.Path)
		if !there {
			return nil // it has been removed since, or its next mount finds it
		}
		r.Open = false // what a writer of this mount makes of it, its close says
		known, err := u.factsOf(r, &f)
		if err != nil || !decide(known).compareLater {
			return err
		}
		compared++
		if err := u.compareCopy(r); err != nil && u.ctx.Err() == nil {
			u.log.Error("not compared with its File", "path", r.Path, "file", r.FileID, "error", err)
		}
		return nil
	})
	if compared > 0 {
		u.journal.Sync()
		u.log.Info("completed files compared after a restart of the machine", "files", compared)
	}
	return err
}
