package main

import (
	"bytes"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-runewidth"
	"golang.org/x/sys/unix"
)

// screen is how much fits: columns and rows. Zero is no limit, as in a file.
type screen struct{ width, height int }

// screenOf is the size of the terminal that w writes to.
func screenOf(w io.Writer) screen {
	switch w := w.(type) {
	case *frame:
		return w.screen
	case *os.File:
		if size, err := unix.IoctlGetWinsize(int(w.Fd()), unix.TIOCGWINSZ); err == nil {
			return screen{int(size.Col), int(size.Row)}
		}
	}
	return screen{}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

// cut shortens a line to the width of the screen.
func (s screen) cut(line string) string {
	if s.width == 0 {
		return line
	}
	return runewidth.Truncate(line, s.width, "…")
}

// rows is how many lines one of two lists may have.
func (s screen) rows() int {
	const (
		unlimited = 20 // where there is no screen: --all shows more
		least     = 3
		others    = 14 // lines around the lists
	)
	if s.height == 0 {
		return unlimited
	}
	return max((s.height-others)/2, least)
}

// cutter shortens the lines that are written through it.
type cutter struct {
	w      io.Writer
	screen screen
	line   bytes.Buffer // not ended yet
}

func (c *cutter) Write(p []byte) (int, error) {
	for rest := p; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			c.line.Write(rest)
			return len(p), nil
		}
		c.line.Write(rest[:i])
		if _, err := io.WriteString(c.w, strings.TrimRight(c.screen.cut(c.line.String()), " ")+"\n"); err != nil {
			return 0, err
		}
		c.line.Reset()
		rest = rest[i+1:]
	}
}

// frame is what a terminal shows at one moment.
type frame struct {
	bytes.Buffer
	screen screen
}

// bytes is the frame as it is written over the one before. What does not fit at the
// bottom is left out: the terminal would scroll.
func (f *frame) bytes() []byte {
	const home, toLineEnd, toScreenEnd = "\x1b[H", "\x1b[K", "\x1b[J"
	lines := strings.Split(strings.TrimSuffix(f.String(), "\n"), "\n")
	if f.screen.height > 0 {
		lines = lines[:min(len(lines), f.screen.height-1)]
	}
	return []byte(home + strings.Join(lines, toLineEnd+"\r\n") + toLineEnd + "\r\n" + toScreenEnd)
}
