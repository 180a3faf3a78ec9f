//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

// terminal is a pseudo-terminal: what is written to the one end a person would see
// at the other.
func terminal(b *box) (screen, end *os.File) {
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(b, err)
	b.Cleanup(func() { screen.Close() })
	require.NoError(b, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(b, err)
	end, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(b, err)
	require.NoError(b, unix.IoctlSetWinsize(int(end.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 100}))
	return screen, end
}

// shown runs a command on a terminal and returns all that it wrote there.
func shown(b *box, cmd *exec.Cmd, screen, end *os.File) string {
	b.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = end, end, end
	require.NoError(b, cmd.Start())
	require.NoError(b, end.Close())
	text, err := io.ReadAll(screen)
	if !errors.Is(err, unix.EIO) { // the read ends so when no process has the other
		require.NoError(b, err)
	}
	require.NoError(b, cmd.Wait(), "%s", text)
	return string(text)
}

func TestPutDrawsBars(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.big("f", 16<<20)
	b.write("g", "hello")
	a.SetFaults(local.Faults{RatePerConnection: 16 << 20})
	screen, end := terminal(b)
	text := shown(b, b.command(binary, b.put("--part-size", "8MiB", "f", "g")...), screen, end)
	require.Regexp(t, `f +\[[=>-]+\] +\d+ % \d+(\.\d)? (MiB|B) of 16 MiB`, text)
	require.Regexp(t, `f: file-\w+, 16 MiB in \d`, text)
	// When the bars are gone, the IDs stand by themselves.
	lines := strings.Split(strings.TrimSpace(text), "\r\n")
	files := a.Files()
	require.Len(t, files, 2)
	for i, name := range []string{"f", "g"} {
		for _, f := range files {
			if f.Filename == name {
				require.True(t, strings.HasSuffix(lines[len(lines)-2+i], f.ID), "%q", lines)
			}
		}
	}
}

func TestPutLeavesNoBarAfterCtrlC(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.big("f", 16<<20)
	b.write("g", "hello")
	started, release := a.block(t)
	defer release()
	screen, end := terminal(b)
	cmd := b.command(binary, b.put("--part-size", "8MiB", "f", "g")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = end, end, end
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	require.NoError(t, cmd.Start())
	require.NoError(t, end.Close())
	<-started
	text, pressed := "", false
	for buf := make([]byte, 4096); ; {
		n, err := screen.Read(buf)
		text += string(buf[:n])
		if err != nil {
			require.ErrorIs(t, err, unix.EIO)
			break
		}
		if !pressed && strings.Contains(text, "of 16 MiB") {
			pressed = true
			_, err := screen.WriteString("\x03")
			require.NoError(t, err)
		}
	}
	require.Error(t, cmd.Wait())
	_, last, cleared := strings.Cut(text[strings.LastIndex(text, "of 16 MiB"):], "\x1b[2A\x1b[J")
	require.True(t, cleared, "%q", text)
	require.Equal(t, "uploadfs: f: stopped\r\nuploadfs: g: stopped\r\n", last)
}

func TestPutProgressText(t *testing.T) {
	now := time.Now()
	for want, st := range map[string]*uploader.Status{
		"0 B of 10 B": {State: state.Uploading},
		"4 B of 10 B, 2 B/s, 3 seconds left": {State: state.Uploading, BytesSent: 1,
			Progress: uploader.Progress{Acknowledged: 4, Rate: 2, ETA: 3}},
		"10 B of 10 B, all sent, waiting for the File": {State: state.Uploading, Progress: uploader.Progress{Acknowledged: 10}},
		"4 B of 10 B, no answer; trying again now": {State: state.Retrying, Error: "no answer", Calls: 1,
			Progress: uploader.Progress{Acknowledged: 4}},
	} {
		st.Size = 10
		require.Equal(t, want, progressText(st, now))
	}
}
