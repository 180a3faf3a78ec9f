//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/mount"
	"uploadfs/mount/web"
	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

// page is a report of the mount with these flags.
func (b *box) page(flags ...string) (rep mount.Report) {
	b.Helper()
	require.NoError(b, json.Unmarshal([]byte(b.ok(append([]string{"status", "--json", b.point}, flags...)...)), &rep))
	return rep
}

// The overview shows what has failed and what is being sent, however much there is
// beside; lists are by state and by page; --check names what needs attention.
func TestStatusOfManyFiles(t *testing.T) {
	b := self(t)
	a := newAPI(t)
	a.use(b)
	const waiting = 70
	page := b.mountPage("--close", "background", "--settle", "0")
	a.refuse(400, "no such luck")
	b.shOK(`echo hello > "$M/refused"`)
	b.await("it is refused", func() bool { return b.info("refused").State == state.Failed })
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpCreate && p.Stage == local.StageHead {
			select {
			case <-gate:
			case <-p.Request.Context().Done():
			}
		}
		return nil
	})
	b.shOK(fmt.Sprintf(`for i in $(seq -w %d); do echo $i > "$M/w$i"; done`, waiting))
	b.await("all small calls are under way", func() bool { return b.page("--state", "sending").Matches == 32 })
	rep := b.page()
	require.Equal(t, waiting+1, rep.Matches)
	require.Equal(t, waiting, rep.Counts[state.Uploading])
	require.Equal(t, waiting-32, rep.Queued)
	require.False(t, rep.Sending.Pending.IsZero())

	out := b.ok("status", b.point)
	require.Regexp(t, `^\S+\n  failed  refused  complete upload_\w+: no such luck\n  uploadfs info \S+/refused says more`, out)
	require.Contains(t, out, "\n  … 12 more\n", "20 of 32 are shown")
	require.Contains(t, out, fmt.Sprintf("files       32 uploading, %d queued, 1 failed\n", waiting-32))
	require.Regexp(t, `\n  failed  1/1    6 B   refused  .*no such luck\n`, b.ok("status", "--state", "failed", b.point))
	require.Contains(t, b.ok("status", "--all", b.point), "w70")
	b.refused(2, `unknown state "lost": give queued, sending or one of writing`, "status", "--state", "lost", b.point)

	first := b.page("--limit", "50")
	require.Len(t, first.Files, 50)
	second := b.page("--limit", "50", "--after", first.Next)
	require.Len(t, second.Files, waiting+1-50)
	require.Empty(t, second.Next)
	require.Greater(t, second.Files[0].Path, first.Files[49].Path)
	require.Len(t, b.page("--state", "queued").Files, waiting-32)

	r := b.uploadfs("status", "--check", b.point)
	require.Equal(t, 1, r.code)
	require.Regexp(t, `^\S+/refused: failed: .*no such luck\n$`, r.stdout)
	require.Equal(t, "uploadfs: 1 of the files need attention: see uploadfs info FILE, then uploadfs retry FILE\n", r.stderr)
	r = b.uploadfs("status", "--check", "--max-age", "1ns", b.point)
	require.Equal(t, 1, r.code)
	require.Regexp(t, `/w70: uploading for \d+s\n`, r.stdout)

	// What was interrupted does not hide what has failed.
	b.shOK(`for i in $(seq -w 25); do echo $i > "$M/a$i"; done`)
	cancelled, err := filepath.Glob(filepath.Join(b.point, "a*"))
	require.NoError(t, err)
	b.ok(append([]string{"cancel"}, cancelled...)...)
	out = b.ok("status", b.point)
	require.Regexp(t, `^\S+\n  failed +refused +complete upload_\w+: no such luck\n  interrupted +a01 `, out)
	require.Contains(t, out, "\n  … 6 more\n", "20 of 26 are shown")
	view := b.awaitView(page, "a view", func(web.View) bool { return true })
	require.Zero(t, view.More)
	var order []state.State
	for _, f := range view.Files {
		order = append(order, f.State)
	}
	require.Equal(t, slices.Concat([]state.State{state.Failed}, slices.Repeat([]state.State{state.Interrupted}, 25),
		slices.Repeat([]state.State{state.Uploading}, waiting)), order, "each is shown once")
	_, metrics := get(t, page, "metrics")
	require.Regexp(t, `uploadfs_oldest_pending_seconds [0-9.]*[1-9]`, metrics)

	open()
	b.shOK(`rm "$M"/refused "$M"/a*`)
	b.await("all are there", func() bool { return b.page().Matches == 0 })
	r = b.uploadfs("status", "--check", b.point)
	require.Zero(t, r.code)
	require.Empty(t, r.stdout)
	b.ok("unmount", b.point)
}
