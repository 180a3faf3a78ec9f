package main

import (
	"bytes"
	"errors"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestPrintReport(t *testing.T) {
	r := &mount.Report{
		MountPoint: "/mnt/up", StateDir: "/s", Endpoint: "https://a/v1", WritePath: "writeback",
		Disk: mount.Disk{Used: 3 << 30, Free: 5 << 30},
		Snapshot: uploader.Snapshot{
			Counts:   map[state.State]int{state.Completed: 12, state.Retrying: 1, state.Uploading: 1},
			Parallel: 8, InFlight: 3,
			Files: []*uploader.Status{
				{Path: "big.bin", State: state.Uploading, Size: 1 << 30, UploadID: "u", Acked: 3, Total: 16},
				{Path: "evil\x1b[2J\tname", State: state.Retrying, Size: 5, Error: "503: busy", NextAttempt: now.Add(4 * time.Second)},
			},
		},
	}
	var out bytes.Buffer
	require.NoError(t, printReport(&out, r, now))
	require.Equal(t, `/mnt/up
  endpoint    https://a/v1
  state dir   /s
  write path  writeback
  disk        3.0 GiB used, 5.0 GiB free
  in flight   3 of 8
  files       1 uploading, 1 retrying, 12 completed

  STATE      PARTS  SIZE     PATH               REASON
  uploading  3/16   1.0 GiB  big.bin            -
  retrying   -      5 B      evil\x1b[2J\tname  503: busy; next attempt 4 seconds from now
`, out.String())

	out.Reset()
	require.NoError(t, printReport(&out, &mount.Report{MountPoint: "/m", Ending: true}, now))
	require.Contains(t, out.String(), "/m (unmounted; uploading what is pending)\n")
	require.Contains(t, out.String(), "files       none\n")
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
