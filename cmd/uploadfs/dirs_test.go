//go:build linux

package main

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

// barShown is the bar of a wait for five files.
var barShown = regexp.MustCompile(`5 files +\[[=>-]+\] +\d+ % .* of 18 B`)

// info, wait and retry take directories, and the mount point, for all files below.
func TestDirectories(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	b.mount("--close", "background", "--settle", "0")
	dir := filepath.Join(b.point, "d")
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpComplete && p.Stage == local.StageHead {
			for _, up := range a.Uploads() {
				if strings.Contains(p.Request.URL.Path, up.ID) && strings.HasPrefix(up.Filename, "bad") {
					return &local.Fault{Status: 400, Message: "no such luck"}
				}
			}
		}
		return nil
	})
	b.shOK(`mkdir -p "$M/d/deeper" "$M/do"; cd "$M/d"; echo hello > a; echo hello > deeper/bad; : > empty; echo x > 'old~'; echo hello > "$M/do/bad2"`)
	r := b.uploadfs("wait", dir)
	require.Equal(t, 1, r.code)
	require.Equal(t, "4 files: 1 failed, 1 excluded, 1 completed, 1 empty (6 B completed)\n", r.stdout)
	require.Regexp(t, `^uploadfs: \S+/d/deeper/bad: failed: .*no such luck; try again with uploadfs retry\n$`, r.stderr)

	b.await("the other one has failed too", func() bool { return b.info("do/bad2").State == state.Failed })
	out := b.ok("info", dir)
	require.Regexp(t, `(?m)^  failed +1/1 +6 B +\S+/d/deeper/bad +.*no such luck$`, out)
	require.Contains(t, out, dir+": 1 failed, 1 excluded, 1 completed, 1 empty\n")
	require.Equal(t, 4, strings.Count(b.ok("info", "--json", dir), "\n"))

	a.SetIntercept(nil)
	require.Equal(t, dir+": 1 tried again\n", b.ok("retry", dir))
	require.Equal(t, "4 files: 1 excluded, 2 completed, 1 empty (12 B completed)\n", b.ok("wait", dir))
	require.Equal(t, state.Failed, b.info("do/bad2").State, "it is in another directory, whose name begins alike")
	require.Empty(t, b.ok("retry", dir), "there is nothing left")
	b.refused(2, "name the files or directories to try again", "retry")
	require.Contains(t, b.ok("retry", "--all"), b.point+": 1 tried again\n")
	require.Equal(t, "5 files: 1 excluded, 3 completed, 1 empty (18 B completed)\n", b.ok("wait", b.point))
	b.refused(1, "is not on an uploadfs mount", "info", b.dir)
	require.Equal(t, b.ok("version"), b.ok("--version"))

	// On a terminal there is a bar while files are on their way.
	_, release := a.block(t)
	b.shOK(`echo hello > "$M/d/late"`)
	screen, end := terminal(b)
	cmd := b.command(binary, "wait", dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = end, end, end
	require.NoError(t, cmd.Start())
	require.NoError(t, end.Close())
	var text strings.Builder
	for buf := make([]byte, 4<<10); ; {
		n, err := screen.Read(buf)
		text.Write(buf[:n])
		if barShown.MatchString(text.String()) {
			release()
		}
		if errors.Is(err, unix.EIO) { // no process has the other end
			break
		}
		require.NoError(t, err)
	}
	require.NoError(t, cmd.Wait())
	last := text.String()[strings.LastIndex(text.String(), "]")+1:]
	require.Contains(t, last, "5 files: 1 excluded, 3 completed, 1 empty (18 B completed)", "no bar is left")
	b.ok("unmount", b.point)
}
