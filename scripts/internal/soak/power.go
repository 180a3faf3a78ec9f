//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"uploadfs/uploader/api/local"
)

// power cuts the power of the filesystem that holds the state directory, at each step of
// a file's life. The daemon and all programs end with it. The filesystem is mounted again
// as it was left, the machine has another boot ID, and the next daemon has to make of it
// what it can.
type power struct {
	*rig
	d     *daemon
	disk  *disk
	paths []string // the write paths that this machine has
	deck  []step   // the steps that come before one comes again
	slots [5]*program
	logAt int64 // how long the daemon's log was when it began
}

func (p *power) begin(ctx context.Context) (err error) {
	if p.disk, err = newDisk(p.dir); err != nil {
		return err
	}
	if p.d, err = p.newMount("mount"); err != nil {
		return err
	}
	p.d.state = filepath.Join(p.disk.point, "state")
	p.paths = []string{p.path}
	if p.path == "auto" {
		if err := p.d.mount(ctx); err != nil {
			return err
		}
		r, err := p.d.report(ctx)
		if err := errors.Join(err, p.d.unmount(ctx)); err != nil {
			return err
		}
		if p.paths[0] = r.WritePath; r.WritePath == passthrough {
			p.paths = append(p.paths, "writeback")
		}
	}
	return p.disk.sync()
}

func (p *power) end() error {
	if p.disk == nil {
		return nil
	}
	err := error(nil)
	if p.d != nil {
		err = p.d.end()
	}
	return errors.Join(err, p.disk.end())
}

// next is the step of the next round.
func (p *power) next() step {
	if len(p.deck) == 0 {
		for _, n := range p.random.Perm(int(numberSteps)) {
			p.deck = append(p.deck, step(n))
		}
	}
	s := p.deck[0]
	p.deck = p.deck[1:]
	return s
}

func (p *power) round(ctx context.Context) (err error) {
	m := newMoment(p.next(), p.random)
	if m.step.apiAway() {
		p.set(away)
	} else {
		p.set(m.intercept)
	}
	p.d.path = p.paths[p.random.IntN(len(p.paths))]
	defer func() { err = wrap(fmt.Sprintf("%s, %s", m.step, p.d.path), err) }()
	tells := !m.step.apiAway() && p.random.IntN(3) == 0
	if err := p.mount(ctx, tells); err != nil {
		return err
	}
	var running, busy sync.WaitGroup
	defer running.Wait()
	defer m.died() // else they would wait for ever
	defer m.release()
	programs := p.programs(m, tells)
	for _, f := range programs {
		busy.Add(1)
		f.idle = sync.OnceFunc(busy.Done)
		running.Go(f.work)
	}
	idle := make(chan struct{})
	go func() { busy.Wait(); close(idle) }() // ends with the programs
	if err := p.reach(ctx, m, programs, idle); err != nil {
		return err
	}
	p.sum.counts["cut: "+m.step.String()]++
	if err := p.cut(m, programs, &running); err != nil {
		return err
	}
	p.set(nil)
	if m.step == recovering || m.step == secondLife {
		if err := p.again(ctx); err != nil {
			return err
		}
	}
	if p.random.IntN(2) == 0 {
		m.release()
	}
	if err := p.mount(ctx, false); err != nil {
		return err
	}
	m.release()
	if err := p.reckon(ctx, programs); err != nil {
		return err
	}
	return p.tidy(ctx)
}

// mount starts the daemon. tells says that close returns when the File exists.
func (p *power) mount(ctx context.Context, tells bool) error {
	mode := "background"
	if tells {
		mode = "wait"
	}
	p.d.flags = []string{"--close", mode, "--drain-timeout", "10ms", "--hold-for", "1s", "--log-level", "debug"}
	p.logAt = 0
	if fi, err := os.Stat(p.logName()); err == nil {
		p.logAt = fi.Size()
	}
	return p.d.mount(ctx)
}

func (p *power) logName() string { return filepath.Join(p.d.state, "uploadfs.log") }

// programs are those of a round, one for each name. The first makes an Upload in any
// case, and one comes to the step if a program has to.
func (p *power) programs(m *moment, tells bool) []*program {
	var programs []*program
	for i := range p.slots {
		f := &program{
			p: p, m: m, random: rand.New(rand.NewPCG(p.random.Uint64(), 0)), tells: tells,
			name: fmt.Sprint("file", i), spoken: map[digest]bool{},
		}
		if old := p.slots[i]; old != nil {
			f.holds, f.path, f.closed, f.spoken = old.holds, old.path, true, old.spoken
		}
		f.life = &lives[p.random.IntN(len(lives))]
		switch {
		case i == 0:
			f.life = lifeNamed("overwritten")
		case i == 1 && m.step == mapped:
			f.life = lifeNamed("stored into after its close")
		case i == 1 && m.step == renamed:
			f.life = lifeNamed("held, then renamed")
		case i == 1 && m.step == removed:
			f.life = lifeNamed("removed")
		case f.holds != nil && f.life.name == "written",
			m.step == completed && f.life.name == "stored into after its close": // it is not while it is mapped
			f.life = lifeNamed("left alone")
		}
		p.slots[i] = f
		programs = append(programs, f)
	}
	return programs
}

// reach waits until the step has been reached.
func (p *power) reach(ctx context.Context, m *moment, programs []*program, idle <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	if m.step.ofProgram() || m.step.ofAPI() {
		select {
		case <-m.reached:
			return nil
		case <-idle:
			if m.step.ofProgram() {
				return nil // the programs have not come that far
			}
		case <-ctx.Done():
			return errors.New("not reached")
		}
	}
	select {
	case <-idle:
	case <-ctx.Done():
		return errors.New("the programs do not come to their end")
	}
	for _, f := range programs {
		if f.err != nil {
			return f.err
		}
	}
	switch m.step {
	case completed:
		_, err := p.settled(ctx, p.d)
		return err
	case syncBegun:
		return p.awaitSynced(ctx, programs, 1)
	case syncEnded:
		return p.awaitSynced(ctx, programs, len(programs))
	case cleanEnd, secondLife:
		return p.endCleanly(programs)
	case waiting, recovering:
		return nil
	}
	select {
	case <-m.reached:
		return nil
	case <-ctx.Done():
		return errors.New("not reached")
	}
}

// awaitSynced waits until the daemon says of n of the files that wait that they are on
// the disk, or of all of them. What the journal says of that is brought there too.
func (p *power) awaitSynced(ctx context.Context, programs []*program, n int) error {
	for {
		files, err := p.d.status(ctx)
		if err != nil {
			return err
		}
		said, err := p.saidSynced()
		if err != nil {
			return err
		}
		var are []*program
		waiting := 0
		for _, f := range programs {
			for _, file := range files {
				if file.Path == f.path && f.closed && file.State != "writing" {
					waiting++
				}
			}
			if f.closed && said[f.path] {
				are = append(are, f)
			}
		}
		if len(are) >= min(n, waiting) {
			return p.flushJournal(are)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not brought to the disk: %v of %v, %v", said, waiting, files)
		}
	}
}

// saidSynced are the files of which the daemon has said that they are on the disk.
func (p *power) saidSynced() (map[string]bool, error) {
	file, err := os.Open(p.logName())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(p.logAt, io.SeekStart); err != nil {
		return nil, err
	}
	said := map[string]bool{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if _, rest, ok := strings.Cut(lines.Text(), `msg="on the disk" path=`); ok {
			path, _, _ := strings.Cut(rest, " ")
			said[path] = true
		}
	}
	return said, nil
}

// flushJournal brings the daemon's journal to the disk, as the kernel would in a while,
// and with it that these files are recorded as on the disk.
func (p *power) flushJournal(are []*program) error {
	for _, name := range []string{"journal.db-wal", "journal.db"} {
		file, err := os.Open(filepath.Join(p.d.state, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // after a clean end
		}
		if err != nil {
			return err
		}
		if err := errors.Join(file.Sync(), file.Close()); err != nil {
			return err
		}
	}
	for _, f := range are {
		f.keeps(recorded)
	}
	return nil
}

// keeps notes that what the file holds is safe, if it holds anything.
func (f *program) keeps(safe safety) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holds != nil && f.closed {
		f.safe = max(f.safe, safe)
	}
}

// syncAll brings everything to the disk. What is written meanwhile may not be there.
func (p *power) syncAll(programs []*program) error {
	before := map[*program]int{}
	for _, f := range programs {
		f.mu.Lock()
		before[f] = f.changes
		f.mu.Unlock()
	}
	if err := p.disk.sync(); err != nil {
		return err
	}
	for _, f := range programs {
		f.mu.Lock()
		if f.holds != nil && f.closed && f.changes == before[f] {
			f.safe = max(f.safe, onDisk)
		}
		f.mu.Unlock()
	}
	return nil
}

// endCleanly tells the daemon to end. Of every closed file it has recorded by then that
// it is on the disk.
func (p *power) endCleanly(programs []*program) error {
	if err := p.d.signal(syscall.SIGTERM); err != nil {
		return err
	}
	for _, f := range programs {
		f.keeps(recorded)
	}
	return nil
}

// cut cuts the power: the disk, the daemon and the programs end, in any order of the
// first two. The disk is mounted again.
func (p *power) cut(m *moment, programs []*program, running *sync.WaitGroup) error {
	time.Sleep(time.Duration(max(0, p.random.IntN(100)-50)) * time.Millisecond)
	switch p.random.IntN(5) {
	case 0:
		if err := p.syncAll(programs); err != nil {
			return err
		}
	case 1, 2:
		if err := p.flushJournal(nil); err != nil {
			return err
		}
	}
	m.begun.Store(true)
	p.set(unplugged)
	pid := 0
	if m.step != cleanEnd && m.step != secondLife {
		var err error
		if pid, err = p.d.pid(); err != nil {
			return err // the disk cannot tell it afterwards
		}
	}
	f := flavour(p.random.IntN(int(allFlavours)))
	p.sum.counts["brought to the disk: "+f.String()]++
	kill := func() error {
		if pid == 0 {
			return nil
		}
		return end(pid, syscall.SIGKILL)
	}
	var err error
	if p.random.IntN(2) == 0 {
		err = errors.Join(kill(), p.disk.shutDown(f))
	} else {
		err = errors.Join(p.disk.shutDown(f), kill())
	}
	m.died()
	if err != nil {
		return err
	}
	running.Wait()
	for _, f := range programs {
		err = errors.Join(err, f.err)
	}
	return errors.Join(err, p.boot())
}

// unplugged is the network of a machine without power: no new call is carried out.
func unplugged(at local.Point) *local.Fault {
	if at.Stage == local.StageDone {
		return nil
	}
	return &local.Fault{Reset: true}
}

// boot brings the machine up again.
func (p *power) boot() error {
	if err := unix.Unmount(p.d.point(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return wrap("detach the dead mount", err)
	}
	return errors.Join(p.disk.unmount(), p.disk.newBoot(), p.disk.mount())
}

// again cuts the power once more, while the next daemon works at what it has found.
func (p *power) again(ctx context.Context) error {
	m := newMoment(beforeCreate+step(p.random.IntN(int(completed-beforeCreate))), p.random)
	defer m.release()
	p.set(m.intercept)
	if err := p.mount(ctx, false); err != nil {
		return err
	}
	select {
	case <-m.reached:
	case <-time.After(time.Duration(p.random.IntN(1000)) * time.Millisecond):
	}
	p.sum.counts["cut again: "+m.step.String()]++
	if err := p.cut(m, nil, &sync.WaitGroup{}); err != nil {
		return err
	}
	p.set(nil)
	return nil
}
