package main

import (
	"bytes"
	"errors"
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// shownReports are the answers that the overview of a mount is made of.
func shownReports() [][]mount.Report {
	failed := mount.Report{
		MountPoint: "/mnt/up", StateDir: "/s", Endpoint: "https://a/v1", WritePath: "writeback",
		Disk: mount.Disk{Used: 3 << 30, Free: 5 << 30},
		Snapshot: uploader.Snapshot{
			Counts:   map[state.State]int{state.Completed: 12, state.Retrying: 2, state.Uploading: 863, state.Failed: 1, state.Interrupted: 862},
			Parallel: 8, InFlight: 3, Queued: 862,
			Sending: uploader.Sending{Bytes: 4 << 30, Progress: uploader.Progress{Acknowledged: 1 << 30, Rate: 10 << 20, ETA: 308}},
			Matches: 1,
			Files:   []*uploader.Status{{Path: "evil\x1b[2J\tname", State: state.Failed, Size: 5, Error: "no such purpose"}},
		},
	}
	interrupted := failed
	interrupted.Matches, interrupted.Next, interrupted.Files = 862, "a", []*uploader.Status{{Path: "a", State: state.Interrupted, Error: "cancelled"}}
	sending := failed
	sending.Matches, sending.Next = 3, ""
	sending.Files = []*uploader.Status{
		{Path: "big.bin", State: state.Uploading, Size: 1 << 30, UploadID: "u", Acked: 3, Total: 16, Calls: 8,
			Progress: uploader.Progress{Acknowledged: 1 << 28, Rate: 10 << 20, ETA: 77}},
		{Path: "now", State: state.Retrying, Size: 5, Error: "503: busy", Calls: 1},
		{Path: "soon", State: state.Retrying, Size: 5, Error: "503: busy", NextAttempt: now.Add(4 * time.Second)},
	}
	return [][]mount.Report{{failed, interrupted, sending}}
}

func TestPrintStatus(t *testing.T) {
	var out bytes.Buffer
	c := statusConfig{}
	require.NoError(t, c.print(&out, screen{}, shownReports(), now))
	require.Equal(t, `/mnt/up
  failed       evil\x1b[2J\tname  no such purpose
  interrupted  a                  cancelled
  … 861 more
  uploadfs info /mnt/up/evil\x1b[2J\tname says more; uploadfs retry /mnt/up tries all again

  big.bin  [#####---------------]  25%  3/16 parts, 10 MiB/s, 1 minute left
  now      [--------------------]   0%  trying again now, 503: busy
  soon     [--------------------]   0%  next attempt 4 seconds from now, 503: busy

  endpoint    https://a/v1
  state dir   /s
  write path  writeback
  disk        3.0 GiB used, 5.0 GiB free
  in flight   3 of 8
  sent        1.0 GiB of 4.0 GiB, 10 MiB/s, 5 minutes left
  files       1 uploading, 862 queued, 2 retrying, 1 failed, 862 interrupted, 12 completed
`, out.String())

	out.Reset()
	require.NoError(t, c.print(&out, screen{width: 40, height: 25}, shownReports(), now))
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 41, line)
	}
	require.Contains(t, out.String(), "  big.bin  [#-----]  25%  3/16 parts, 1…\n")

	out.Reset()
	c.all = true
	require.NoError(t, c.print(&out, screen{}, [][]mount.Report{shownReports()[0][2:]}, now))
	require.Equal(t, `/mnt/up
  STATE      PARTS  SIZE     PATH     REASON
  uploading  3/16   1.0 GiB  big.bin  -
  retrying   -      5 B      now      503: busy; trying again now
  retrying   -      5 B      soon     503: busy; next attempt 4 seconds from now
`, out.String())

	out.Reset()
	c.all = false
	ending := mount.Report{MountPoint: "/m", Ending: true}
	require.NoError(t, c.print(&out, screen{}, [][]mount.Report{{ending, ending, ending}}, now))
	require.Contains(t, out.String(), "/m (unmounted; uploading what is pending)\n")
	require.Contains(t, out.String(), "files       none\n")
}

// A frame is written over the one before it, and never scrolls the terminal.
func TestFrame(t *testing.T) {
	f := frame{screen: screen{width: 80, height: 3}}
	f.WriteString("one\ntwo\nthree\n")
	require.Equal(t, "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n\x1b[J", string(f.bytes()))
}

func TestPrintInfo(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, printInfo(&out, "up/a\nb", &uploader.Status{
		State: state.Failed, Since: now.Add(-time.Minute), Size: 1536, Error: "no",
		UploadID: "upload_1", Acked: 1, Total: 2, BytesSent: 1024, ExpiresAt: now.Add(time.Hour),
		PartIDs: []string{"part_1"}, Superseded: []string{"file-1", "file-2"}, SupersededCount: 10, MadeOften: true,
	}, now))
	require.Equal(t, `up/a\nb
  state          failed, 1 minute ago
  error          no
  size           1.5 KiB (1,536 bytes)
  upload         upload_1
  progress       1/2 parts, 1.0 KiB sent
  expires        1 hour from now
  files made     10
  earlier files  file-1, file-2, and 8 before: uploadfs info --superseded lists all
  advice         each close makes a File: mount with --close=background, which is made for this
  part 0         part_1
`, out.String())
}

func TestPrintError(t *testing.T) {
	var out bytes.Buffer
	printError(&out, errors.Join(errors.New("one\x1b"), nil, errors.New("two")))
	require.Equal(t, "uploadfs: one\\x1b\nuploadfs: two\n", out.String())
	out.Reset()
	printError(&out, nil)
	require.Empty(t, out.String())
}

func TestVersionText(t *testing.T) {
	require.Contains(t, version(nil, false), "uploadfs (devel), commit unknown, go")
	info := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}}
	info.Main.Version = "v1.2.3"
	require.Contains(t, version(info, true), "uploadfs v1.2.3, commit abc, with changes, go")
}

func TestRunHelp(t *testing.T) {
	var out, errs bytes.Buffer
	require.Zero(t, run([]string{"mount", "--help"}, &out, &errs))
	require.Empty(t, errs.String())
	for _, flag := range []string{"--embedded", "--state-dir DIR", "--purpose PURPOSE", "--part-size SIZE", "--parallel", "--close MODE",
		"--close-timeout", "--checksum KIND", "--write-path PATH", "--drain-timeout", "--hold GLOB", "--no-hold", "--hold-for",
		"--exclude GLOB", "--api-key-file FILE", "--insecure-http", "--log-format FORMAT", "--log-level LEVEL", "-o, --options", "-f, --foreground"} {
		require.Contains(t, out.String(), flag)
	}
}
