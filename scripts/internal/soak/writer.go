//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// names is how many names a writer has for its files. They are the same in
// every writer's directory, so that Files have namesakes.
const names = 6

// writer runs one program after the other on the files of its own directory.
type writer struct {
	loop   *loop
	dir    string
	source string // what programs copy from
	random *rand.Rand
	holds  map[string][]byte // by path: what the ledger is certain of
	ops    int
}

func newWriter(l *loop, i int) *writer {
	return &writer{
		loop: l, dir: fmt.Sprint("writer", i), source: filepath.Join(l.dir, "src", fmt.Sprint(i)),
		random: rand.New(rand.NewPCG(l.seed, uint64(i)+1)),
		holds:  map[string][]byte{},
	}
}

// work does one thing after the other until the daemon is killed, which alone
// may make one fail.
func (w *writer) work(alive context.Context) error {
	if err := os.MkdirAll(filepath.Join(w.loop.daemon.point(), w.dir), 0o755); err != nil && alive.Err() == nil {
		return err
	}
	for alive.Err() == nil {
		path := filepath.Join(w.dir, fmt.Sprint("file", w.random.IntN(names)))
		before, certain := w.holds[path]
		var err error
		switch op := w.random.IntN(12); {
		case op < 3:
			err = w.write(path, w.content(), "cp", w.source, w.at(path))
		case op < 5 || !certain: // the rest needs something to work on
			err = w.write(path, w.content(), "sh", "-c", slowly, w.source, w.at(path))
		case op < 7:
			err = w.write(path, w.content(), "dd", "if="+w.source, "of="+w.at(path), "bs=4k", "status=none")
		case op < 8:
			err = w.add(path, before)
		case op < 9:
			err = w.edit(path, before)
		case op < 11:
			err = w.rename(path, filepath.Join(w.dir, fmt.Sprint("file", w.random.IntN(names))))
		default:
			err = w.remove(path)
		}
		if err != nil && alive.Err() == nil {
			return err
		}
		w.ops++
	}
	return nil
}

// slowly copies in three pieces with pauses, in which the daemon is likely to be
// killed. The status is dd's, which hears what close says.
const slowly = `
n=$(($(stat -c %s "$0") / 3))
{ head -c $n "$0"; sleep 0.2; tail -c +$((n + 1)) "$0" | head -c $n; sleep 0.2; tail -c +$((2 * n + 1)) "$0"; } |
	dd of="$1" bs=4k status=none`

func (w *writer) at(path string) string { return filepath.Join(w.loop.daemon.point(), path) }

// content is as large as files are: mostly small, and sometimes of several parts.
func (w *writer) content() []byte {
	size := 1 + w.random.IntN(64<<10)
	switch n := w.random.IntN(20); {
	case n == 0:
		size = 8<<20 + w.random.IntN(9<<20)
	case n < 5:
		size = 1 + w.random.IntN(2<<20)
	}
	return randomBytes(w.random, size)
}

// randomBytes are size bytes that no other file has.
func randomBytes(random *rand.Rand, size int) []byte {
	content := make([]byte, size)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(random.Uint32())
	}
	rand.NewChaCha8(seed).Read(content)
	return content
}

// write has a program copy content from the source to path, after which path
// holds exactly that.
func (w *writer) write(path string, content []byte, program ...string) error {
	return w.change(path, content, content, program...)
}

// add appends.
func (w *writer) add(path string, before []byte) error {
	more := w.content()
	return w.change(path, more, append(bytes.Clone(before), more...),
		"dd", "if="+w.source, "of="+w.at(path), "oflag=append", "conv=notrunc", "bs=64k", "status=none")
}

// edit overwrites some of it.
func (w *writer) edit(path string, before []byte) error {
	piece := w.content()
	piece = piece[:min(len(piece), 100_000)]
	off := w.random.IntN(len(before))
	after := append(bytes.Clone(before[:off]), piece...)
	if rest := off + len(piece); rest < len(before) {
		after = append(after, before[rest:]...)
	}
	return w.change(path, piece, after, "dd", "if="+w.source, "of="+w.at(path), fmt.Sprint("seek=", off),
		"oflag=seek_bytes", "conv=notrunc", "bs=16k", "status=none")
}

// change runs a program that reads the source and leaves path with the content
// after. It fails, and leaves path to doubt, when the program fails.
func (w *writer) change(path string, source, after []byte, program ...string) error {
	if err := os.WriteFile(w.source, source, 0o644); err != nil {
		return err
	}
	sum := w.loop.ledger.intend(after)
	w.doubt(path)
	if err := w.run(program...); err != nil {
		return err
	}
	w.loop.ledger.closed(path, sum)
	w.holds[path] = after
	return nil
}

// rename moves a file, perhaps over another one. It happens as a whole or not at
// all, and the tree says which.
func (w *writer) rename(from, to string) error {
	content := w.holds[from]
	if from == to {
		return nil
	}
	w.doubt(from)
	w.doubt(to)
	err := w.run("mv", w.at(from), w.at(to))
	for _, path := range []string{from, to} {
		got, readErr := os.ReadFile(filepath.Join(w.loop.daemon.tree(), path))
		switch {
		case errors.Is(readErr, fs.ErrNotExist) && (err != nil || path == from):
		case readErr != nil:
			return readErr
		case bytes.Equal(got, content):
			w.loop.ledger.kept(path, sha256.Sum256(content))
			w.holds[path] = content
		case err == nil:
			return fmt.Errorf("wrong: %s was renamed to %s and has another content", from, to)
		}
	}
	if _, kept := w.holds[from]; kept && err == nil {
		return fmt.Errorf("wrong: %s was renamed to %s and is still there", from, to)
	}
	return err
}

func (w *writer) remove(path string) error {
	content := w.holds[path]
	w.doubt(path)
	err := w.run("rm", w.at(path))
	if got, readErr := os.ReadFile(filepath.Join(w.loop.daemon.tree(), path)); readErr == nil && bytes.Equal(got, content) {
		if err == nil {
			return fmt.Errorf("wrong: %s was removed and is still there", path)
		}
		w.loop.ledger.kept(path, sha256.Sum256(content))
		w.holds[path] = content
	}
	return err
}

// doubt forgets what path holds.
func (w *writer) doubt(path string) {
	w.loop.ledger.doubt(path)
	delete(w.holds, path)
}

// run runs a program to its end.
func (w *writer) run(program ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	out, err := exec.CommandContext(ctx, program[0], program[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", program, err, bytes.TrimSpace(out))
	}
	return nil
}
