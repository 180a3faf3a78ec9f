//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/mount/web"
	"uploadfs/uploader/state"
)

// mountPage mounts with --http, and returns the page's URL.
func (b *box) mountPage(args ...string) (url string) {
	b.Helper()
	r := b.uploadfs(b.mountArgs(append(args, "--http", "127.0.0.1:0")...)...)
	require.Zero(b, r.code, r.stderr)
	b.cleanup()
	url, ok := strings.CutPrefix(strings.TrimSpace(r.stdout), "page: ")
	require.True(b, ok, r.stdout)
	return url
}

// get fetches what stands beside the page.
func get(t *testing.T, page, name string) (int, string) {
	t.Helper()
	resp, err := http.Get(strings.Replace(page, "/?", "/"+name+"?", 1))
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// awaitView reads the page's events until one is as wanted.
func (b *box) awaitView(page, what string, wanted func(web.View) bool) web.View {
	b.Helper()
	resp, err := http.Get(strings.Replace(page, "/?", "/events?", 1))
	require.NoError(b, err)
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		require.NoError(b, err, what)
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var v web.View
		require.NoError(b, json.Unmarshal([]byte(data), &v))
		if wanted(v) {
			return v
		}
	}
}

var metricName = regexp.MustCompile(`\buploadfs_[a-z_]+`)

// One mount with a page: a running upload, its completion, a failure, and the metrics of
// all that, which are those that deploy/ speaks of.
func TestPage(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	started, release := server.block(t)
	page := b.mountPage("--part-size", "8MiB", "--parallel", "1", "--close", "background")
	require.Contains(t, b.ok("status", b.point), page)
	require.Equal(t, page, b.status().Page)

	big := filepath.Join(b.point, "big")
	b.shOK(`head -c 20000000 /dev/zero > "$M/big"`)
	<-started
	v := b.awaitView(page, "a part is on its way", func(v web.View) bool {
		return len(v.Files) == 1 && strings.Contains(v.Files[0].Parts, "s")
	})
	require.Equal(t, "sww", v.Files[0].Parts)
	require.Equal(t, []any{"big", state.Uploading, int64(20000000), 0, 3, 1, 1},
		[]any{v.Files[0].Path, v.Files[0].State, v.Files[0].Size, v.Files[0].Acked, v.Files[0].Total, v.Slots, v.SlotsInUse})
	release()
	b.ok("wait", big)
	v = b.awaitView(page, "it is completed", func(v web.View) bool { return len(v.Completed) == 1 })
	require.Equal(t, b.info("big").FileID, v.Completed[0].FileID)
	require.Equal(t, int64(20000000), v.Completed[0].Sent)
	require.Empty(t, v.Files)
	require.Equal(t, int64(20000000), v.Sent)

	server.refuse(http.StatusBadRequest, "This organisation is tired.")
	b.shOK(`echo hello > "$M/private-name"`)
	v = b.awaitView(page, "it has failed", func(v web.View) bool { return v.Counts[state.Failed] == 1 })
	require.Contains(t, v.Files[0].Error, "is tired.")

	code, text := get(t, page, "metrics")
	require.Equal(t, http.StatusOK, code)
	for _, want := range []string{
		`uploadfs_sent_bytes_total 2.0000006e+07`, `uploadfs_parts_total 4`, `uploadfs_files{state="failed"} 1`,
		`uploadfs_completed_files_total 1`, `uploadfs_slots 1`, `uploadfs_api_attempts_total{call="complete",result="refused"} 1`,
		`uploadfs_part_duration_seconds_count 4`, `go_goroutines `, `process_open_fds `,
	} {
		require.Contains(t, text, "\n"+want)
	}
	require.NotContains(t, text, "private-name")
	for _, name := range []string{"alerts.yml", "grafana-dashboard.json"} {
		used, err := os.ReadFile(filepath.Join("../../deploy", name))
		require.NoError(t, err)
		names := metricName.FindAllString(string(used), -1)
		require.NotEmpty(t, names)
		for _, metric := range names {
			require.Regexp(t, `(?m)^`+metric+`[ {]|^# TYPE `+metric+` `, text, "%s speaks of %s", name, metric)
		}
	}

	code, text = get(t, page, "status.json")
	require.Equal(t, http.StatusOK, code)
	var rep struct{ Counts map[state.State]int }
	require.NoError(t, json.Unmarshal([]byte(text), &rep))
	require.Equal(t, map[state.State]int{state.Completed: 1, state.Failed: 1}, rep.Counts)
	code, _ = get(t, strings.Replace(page, "token=", "token=x", 1), "status.json")
	require.Equal(t, http.StatusForbidden, code)
	code, text = get(t, page, "healthz")
	require.Equal(t, http.StatusOK, code, text)
	seen := b.shOK(`cat state/uploadfs.log`)
	_, token, _ := strings.Cut(page, "token=")
	require.NotContains(t, seen, token)

	fi, err := os.Stat(filepath.Join(b.state, "http-token"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	b.shOK(`rm "$M/private-name"`)
	b.ok("unmount", b.point)
	_, err = http.Get(page)
	require.Error(t, err, "the page has ended with the mount")

	// The token stays; an address that is taken is an error before there is a mount.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	b.refused(1, "address already in use: give another address", b.mountArgs("--http", l.Addr().String())...)
	require.False(t, b.mounted())
	b.refused(2, "give HOST:PORT, or PORT for 127.0.0.1", b.mountArgs("--http", "127.0.0.1:")...)
	l.Close()
	r := b.uploadfs(b.mountArgs("--http", l.Addr().String())...)
	require.Zero(t, r.code, r.stderr)
	b.cleanup()
	require.Equal(t, fmt.Sprintf("page: http://%s/?token=%s\n", l.Addr(), token), r.stdout)
	b.ok("unmount", b.point)
}

// The page of the documents has each metric that the program has, apart from those of
// hooks, which stand with the hooks.
func TestDocsNameEveryMetric(t *testing.T) {
	source := programTexts(t)
	doc := readDoc(t, "docs/monitoring.md")
	var have []string
	for _, name := range metricName.FindAllString(source, -1) {
		if strings.Count(name, "_") > 1 || name == "uploadfs_files" || name == "uploadfs_slots" {
			have = append(have, name)
		}
	}
	require.Greater(t, len(have), 10)
	for _, name := range have {
		require.Contains(t, doc, "`"+name+"`")
	}
	for _, name := range metricName.FindAllString(doc, -1) {
		require.Contains(t, have, name)
	}
}
