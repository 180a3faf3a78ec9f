//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// safety is how far it is certain that a power cut leaves a content.
type safety int

const (
	unsafe   safety = iota
	onDisk          // the bytes are on the disk
	recorded        // and the journal, on the disk too, says so: nothing is left to doubt
)

// program writes one file, and does what else happens to it. What it writes has one
// name at a time, which begins with the program's own.
//
// All programs are goroutines of this process. It serves no mount, so it may wait for one.
type program struct {
	p      *power
	m      *moment // of the round
	random *rand.Rand
	name   string
	tells  bool // close returns when the File exists
	life   *life
	idle   func() // called once the program does nothing more but to end

	mu sync.Mutex // guards the following
	// changes counts what has begun to happen to the file.
	changes int
	// holds is what the file holds, and path where; nil while that changes.
	holds []byte
	path  string
	safe  safety
	// closed says that a close has spoken of what the file holds.
	closed bool

	spoken map[digest]bool // contents of which a close has spoken
	told   []digest        // contents of which a close has said that the File exists
	err    error
}

// manner is how a file is written.
type manner int

const (
	plainly manner = iota
	preallocated
	hinted // the size is known before
	throughMapping
	withFsync
	manners // how many there are
)

func (h manner) String() string {
	return [...]string{"written", "preallocated", "written with a size hint", "mapped", "written and fsynced"}[h]
}

// life is what happens to a file in a round.
type life struct {
	name string
	run  func(f *program) error
}

// lives are all of them. Those that go on with a file make one first where there is none.
var lives = []life{
	{"written", func(f *program) error { return f.create() }},
	{"overwritten", func(f *program) error { return f.after(f.overwrite) }},
	{"edited", func(f *program) error { return f.after(f.edit) }},
	{"appended to", func(f *program) error { return f.after(f.appendMore) }},
	{"replaced", func(f *program) error { return f.after(f.replace) }},
	{"held, then renamed", (*program).writeHeld},
	{"renamed", func(f *program) error { return f.after(func() error { return f.rename(f.name + ".new") }) }},
	{"removed", func(f *program) error { return f.after(f.remove) }},
	{"removed while open", (*program).removeOpen},
	{"stored into after its close", (*program).keepMapping},
	{"left alone", func(f *program) error { return f.after(func() error { return nil }) }},
}

func lifeNamed(name string) *life {
	for i := range lives {
		if lives[i].name == name {
			return &lives[i]
		}
	}
	panic("no such life: " + name)
}

// work is what the program does.
func (f *program) work() {
	defer f.idle()
	if err := f.life.run(f); !errors.Is(err, errPowerCut) {
		f.err = err
	}
}

// store stores into a mapping, which is a fault where the disk is gone.
func (f *program) store(into, what []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = f.failed(fmt.Errorf("a store: %v", fault))
		}
	}()
	copy(into, what)
	return nil
}

// failed is the error of something that must not fail while there is power. A program
// does not go on after an error of the power cut: it has ended with everything else.
func (f *program) failed(err error) error {
	if err == nil {
		return nil
	}
	if f.m.begun.Load() {
		<-f.m.dead
		return errPowerCut
	}
	return fmt.Errorf("%s, %s: %w", f.name, f.life.name, err)
}

// after does something with the file as it is after an earlier round, or with a new one.
func (f *program) after(change func() error) error {
	if f.holds == nil {
		if err := f.create(); err != nil {
			return err
		}
		if f.random.IntN(2) == 0 && !f.m.step.apiAway() {
			if err := f.awaitCompleted(); err != nil {
				return err
			}
		}
	}
	if err := f.m.over(); err != nil {
		return err
	}
	return change()
}

// awaitCompleted waits until the File exists.
func (f *program) awaitCompleted() error {
	for {
		state, err := f.p.d.attr(f.path, "state")
		if state == "completed" {
			return nil
		}
		if err := errors.Join(f.failed(err), f.m.over()); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (f *program) at(path string) string { return filepath.Join(f.p.d.point(), path) }

// content is new bytes. One size comes often, so that Files have namesakes of their size.
func (f *program) content() []byte {
	size := 1 + f.random.IntN(300_000)
	switch n := f.random.IntN(12); {
	case n < 3:
		size = 100_000
	case n == 3 || f.m.step == fullChunk:
		size = 8<<20 + 1 + f.random.IntN(1<<20)
	}
	return randomBytes(f.random, size)
}

func (f *program) manner() manner {
	if f.m.step == fullChunk {
		return []manner{preallocated, hinted}[f.random.IntN(2)]
	}
	if f.m.step == synced {
		return withFsync
	}
	return manner(f.random.IntN(int(manners)))
}

// change begins something after which the file may hold anything.
func (f *program) change() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	f.holds, f.safe, f.closed = nil, unsafe, false
}

// set says what the file holds now, and where.
func (f *program) set(path string, content []byte, safe safety, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	f.path, f.holds, f.safe, f.closed = path, content, safe, closed
}

// speak notes that a close is about to speak of a content.
func (f *program) speak(content []byte) digest {
	sum := f.p.ledger.intend(content)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spoken[sum] = true
	return sum
}

func (f *program) create() error { return f.createAs(f.name) }

func (f *program) createAs(path string) error {
	content := f.content()
	return f.write(path, os.O_CREATE|os.O_EXCL, f.manner(), 0, content, content)
}

func (f *program) overwrite() error {
	content := f.content()
	if f.random.IntN(2) == 0 {
		content = randomBytes(f.random, len(f.holds)) // nothing but the bytes tells them apart
	}
	return f.write(f.path, os.O_TRUNC, f.manner(), 0, content, content)
}

// edit overwrites some bytes, and leaves the size.
func (f *program) edit() error {
	whole := bytes.Clone(f.holds)
	off := f.random.IntN(len(whole))
	piece := randomBytes(f.random, 1+f.random.IntN(min(len(whole)-off, 100_000)))
	copy(whole[off:], piece)
	how := []manner{plainly, withFsync, throughMapping}[f.random.IntN(3)]
	return f.write(f.path, 0, how, off, piece, whole)
}

func (f *program) appendMore() error {
	piece := randomBytes(f.random, 1+f.random.IntN(100_000))
	off := len(f.holds)
	return f.write(f.path, 0, f.manner(), off, piece, append(bytes.Clone(f.holds), piece...))
}

// replace writes another file and renames it over this one, as careful programs do.
func (f *program) replace() error {
	old := f.path
	if err := f.createAs(f.name + ".tmp"); err != nil {
		return err
	}
	return f.rename(old)
}

func (f *program) writeHeld() error {
	if f.holds != nil {
		return f.replace()
	}
	if err := f.createAs(f.name + ".part"); err != nil {
		return err
	}
	return f.rename(f.name)
}

// write writes piece at off, after which a close speaks of whole.
func (f *program) write(path string, flags int, how manner, off int, piece, whole []byte) error {
	if err := f.m.over(); err != nil {
		return err
	}
	f.change()
	file, err := os.OpenFile(f.at(path), os.O_RDWR|flags, 0o644)
	if err != nil {
		return f.failed(err)
	}
	defer file.Close()
	if flags&os.O_CREATE != 0 {
		if err := f.m.pass(created); err != nil {
			return err
		}
	}
	if err := f.fill(file, how, off, piece, len(whole)); err != nil {
		return err
	}
	safe := unsafe
	if how == withFsync {
		if err := file.Sync(); err != nil {
			return f.failed(err)
		}
		if !f.m.begun.Load() { // else ext4 may only have found that its transaction had ended
			safe = onDisk
		}
		f.set(path, whole, safe, false)
		if err := f.m.pass(synced); err != nil {
			return err
		}
	}
	if err := f.m.pass(beforeClose); err != nil {
		return err
	}
	sum := f.speak(whole)
	if err := file.Close(); err != nil {
		return f.failed(err)
	}
	f.set(path, whole, safe, true)
	if f.tells && !isHeld(path) {
		f.told = append(f.told, sum)
	}
	return nil
}

// isHeld reports whether a file of this name waits for another.
func isHeld(path string) bool {
	switch filepath.Ext(path) {
	case ".part", ".tmp":
		return true
	}
	return false
}

// fill writes piece at off into a file that will have size bytes.
func (f *program) fill(file *os.File, how manner, off int, piece []byte, size int) error {
	fd := int(file.Fd())
	switch how {
	case preallocated:
		mode := uint32(unix.FALLOC_FL_KEEP_SIZE)
		if f.random.IntN(3) > 0 {
			mode = 0
		}
		if err := unix.Fallocate(fd, mode, int64(off), int64(len(piece))); err != nil {
			return f.failed(err)
		}
	case hinted:
		if err := unix.Fsetxattr(fd, "user.uploadfs.size_hint", []byte(strconv.Itoa(size)), 0); err != nil {
			return f.failed(err)
		}
	case throughMapping:
		if fi, err := file.Stat(); err != nil || fi.Size() < int64(size) {
			if err = errors.Join(err, file.Truncate(int64(size))); err != nil {
				return f.failed(err)
			}
		}
		mapping, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return f.failed(err)
		}
		defer unix.Munmap(mapping)
		return f.blocks(piece, func(at int, block []byte) error {
			return f.store(mapping[off+at:], block)
		})
	}
	return f.blocks(piece, func(at int, block []byte) error {
		_, err := file.WriteAt(block, int64(off+at))
		return f.failed(err)
	})
}

// blocks writes piece, block by block.
func (f *program) blocks(piece []byte, write func(at int, block []byte) error) error {
	size := len(piece)/4 + 1
	for at := 0; at < len(piece); {
		n := min(size, len(piece)-at)
		if at < 8<<20 && len(piece) > 8<<20 {
			n = min(n, 8<<20-at)
		}
		if err := write(at, piece[at:at+n]); err != nil {
			return err
		}
		at += n
		if at == 8<<20 {
			if err := f.m.pass(fullChunk); err != nil {
				return err
			}
		}
		if at < len(piece) {
			if err := f.m.pass(midWrite); err != nil {
				return err
			}
		}
	}
	return nil
}

// rename happens as a whole, or not at all.
func (f *program) rename(to string) error {
	if to == f.path {
		return nil
	}
	if err := os.Rename(f.at(f.path), f.at(to)); err != nil {
		return f.failed(err)
	}
	f.mu.Lock()
	f.path = to
	f.mu.Unlock()
	return f.m.pass(renamed)
}

func (f *program) remove() error {
	path := f.path
	f.change()
	if err := os.Remove(f.at(path)); err != nil {
		return f.failed(err)
	}
	return f.m.pass(removed)
}

// removeOpen writes a file that has no name any more when it is closed.
func (f *program) removeOpen() error {
	if f.holds != nil {
		return f.remove()
	}
	f.change()
	file, err := os.OpenFile(f.at(f.name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return f.failed(err)
	}
	defer file.Close()
	content := f.content()
	if err := f.fill(file, f.manner(), 0, content, len(content)); err != nil {
		return err
	}
	if err := os.Remove(f.at(f.name)); err != nil {
		return f.failed(err)
	}
	if err := f.m.pass(removed); err != nil {
		return err
	}
	return f.failed(file.Close())
}

// keepMapping stores into the file through a mapping that lives until the power is cut.
// Either no close speaks of that, or the last one may: the daemon hears of it late.
func (f *program) keepMapping() error {
	if f.holds == nil {
		if err := f.create(); err != nil {
			return err
		}
	}
	if err := f.m.over(); err != nil {
		return err
	}
	content := bytes.Clone(f.holds)
	file, err := os.OpenFile(f.at(f.path), os.O_RDWR, 0)
	if err != nil {
		return f.failed(err)
	}
	defer file.Close()
	mapping, err := unix.Mmap(int(file.Fd()), 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return f.failed(err)
	}
	defer unix.Munmap(mapping)
	closes := f.random.IntN(2) == 0
	if closes {
		if err := file.Close(); err != nil {
			return f.failed(err)
		}
	}
	f.change()
	for range 1 + f.random.IntN(3) {
		at := f.random.IntN(len(content))
		content[at]++
		if closes {
			f.speak(content)
		}
		if err := f.store(mapping[at:], content[at:at+1]); err != nil {
			return err
		}
		if err := f.m.pass(mapped); err != nil {
			return err
		}
	}
	f.idle()
	<-f.m.dead
	return nil
}

// sum is the digest of what the file holds.
func (f *program) sum() digest { return sha256.Sum256(f.holds) }
