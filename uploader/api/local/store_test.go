package local_test

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// dataOf lists the owners of parts on disk.
func dataOf(t *testing.T, a *api) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(a.dir, "data", "*"))
	require.NoError(t, err)
	return names
}

// reopen closes a server and opens its directory again.
func (a *api) reopen(opt local.Options) *api {
	a.t.Helper()
	require.NoError(a.t, a.srv.Close())
	opt.Dir = a.dir
	return start(a.t, opt)
}

func TestDirectoryHasOneServer(t *testing.T) {
	a := start(t, local.Options{})
	_, err := local.Open(local.Options{Dir: a.dir})
	require.ErrorContains(t, err, "in use by another server")
	_, err = local.Open(local.Options{})
	require.ErrorContains(t, err, "Options.Dir")
	a.reopen(local.Options{})
}

func TestDirectoryIsPrivate(t *testing.T) {
	a := start(t, local.Options{Dir: filepath.Join(t.TempDir(), "new", "dir")})
	a.upload("batch", []byte("abc"))
	require.NoError(t, filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, path)
		return nil
	}))
}

func TestStateSurvivesReopening(t *testing.T) {
	now := newClock()
	opt := local.Options{Now: now.now}
	a := start(t, opt)
	first := a.upload("batch", []byte("first"))
	second := a.upload("evals", []byte("second"))
	gone := a.upload("batch", []byte("gone"))
	require.Equal(t, 200, a.send("DELETE", "/v1/files/"+gone, "", nil).status)
	cancelled := a.create(1)
	require.Equal(t, 200, a.send("POST", "/v1/uploads/"+cancelled+"/cancel", "", nil).status)
	open := a.create(6)
	one := a.part(open, []byte("abc"))
	files := a.srv.Files()
	before := a.srv.Uploads()

	a = a.reopen(opt)
	require.Equal(t, fmt.Sprint(files), fmt.Sprint(a.srv.Files()))
	after := a.srv.Uploads()
	require.Len(t, after, len(before))
	for i := range before {
		require.Equal(t, before[i].ID, after[i].ID)
		require.Equal(t, before[i].Status, after[i].Status)
		require.Equal(t, before[i].Listed, after[i].Listed)
		require.Equal(t, before[i].MimeType, after[i].MimeType)
	}
	require.Equal(t, "first", string(a.stored(first)))
	require.Equal(t, "second", string(a.stored(second)))
	require.NotEmpty(t, a.get("/v1/files/"+gone).refused(t, 404))
	require.Contains(t, a.complete(cancelled, "", "x").refused(t, 400), "cancelled")
	require.Contains(t, a.complete(before[0].ID, "", "x").refused(t, 400), "completed")
	a.complete(open, sum([]byte("abcdef")), one, a.part(open, []byte("def"))).object(t, uploadMembers...)
	require.Greater(t, a.srv.Files()[2].ID, "", "the new File comes last")
	require.Equal(t, open, a.srv.Files()[2].UploadID)
}

func TestGarbageIsCollected(t *testing.T) {
	now := newClock()
	opt := local.Options{Now: now.now}
	a := start(t, opt)

	// At once: unlisted parts at complete, everything at cancel.
	completed := a.create(3)
	a.part(completed, []byte("xyz"))
	a.complete(completed, "", a.part(completed, []byte("abc"))).object(t, uploadMembers...)
	parts, err := filepath.Glob(filepath.Join(a.dir, "data", completed, "*"))
	require.NoError(t, err)
	require.Len(t, parts, 1)
	cancelled := a.create(3)
	a.part(cancelled, []byte("abc"))
	require.Equal(t, 200, a.send("POST", "/v1/uploads/"+cancelled+"/cancel", "", nil).status)
	require.NoDirExists(t, filepath.Join(a.dir, "data", cancelled))

	// By the janitor: what has expired, and the records of Uploads that ended long ago.
	expired := a.create(3)
	a.part(expired, []byte("abc"))
	now.advance(time.Hour)
	a.srv.Collect()
	require.Len(t, dataOf(t, a), 1)
	require.Len(t, a.srv.Uploads(), 3)
	now.advance(25 * time.Hour)
	a.srv.Collect()
	require.Empty(t, a.srv.Uploads())
	records, err := os.ReadDir(filepath.Join(a.dir, "uploads"))
	require.NoError(t, err)
	require.Empty(t, records)
	require.Len(t, a.srv.Files(), 1)

	// At Open: what a killed process left. Foreign files stay.
	late := a.create(3)
	a.part(late, []byte("abc"))
	require.NoError(t, a.srv.Close())
	stray := filepath.Join(a.dir, "data", completed, "part_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	ownerless := filepath.Join(a.dir, "data", "upload_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	unfinished := filepath.Join(a.dir, "tmp", "part_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	foreign := filepath.Join(a.dir, "data", "notes")
	require.NoError(t, os.Mkdir(ownerless, 0o700))
	for _, name := range []string{stray, unfinished, foreign} {
		require.NoError(t, os.WriteFile(name, []byte("x"), 0o600))
	}
	now.advance(time.Hour)
	a = start(t, local.Options{Dir: a.dir, Now: now.now})
	require.NoFileExists(t, stray)
	require.NoFileExists(t, unfinished)
	require.NoDirExists(t, ownerless)
	require.NoDirExists(t, filepath.Join(a.dir, "data", late))
	require.FileExists(t, foreign)
	require.Equal(t, "expired", a.srv.Uploads()[0].Status)
	require.Equal(t, "abc", string(a.stored(a.srv.Files()[0].ID)))
}

// The janitor itself, not only Collect.
func TestJanitorRuns(t *testing.T) {
	now := newClock()
	a := start(t, local.Options{Now: now.now, CollectEvery: time.Millisecond})
	id := a.create(3)
	a.part(id, []byte("abc"))
	now.advance(time.Hour)
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(a.dir, "data", id))
		return os.IsNotExist(err)
	}, 5*time.Minute, time.Millisecond)
}

// A File's record is what completes an Upload: here the process dies between the two records.
func TestCompleteIsFinishedAtOpen(t *testing.T) {
	a := start(t, local.Options{})
	id := a.create(3)
	part := a.part(id, []byte("abc"))
	record := filepath.Join(a.dir, "uploads", id+".json")
	pending, err := os.ReadFile(record)
	require.NoError(t, err)
	a.complete(id, "", part).object(t, uploadMembers...)
	require.NoError(t, a.srv.Close())
	require.NoError(t, os.WriteFile(record, pending, 0o600))

	a = start(t, local.Options{Dir: a.dir})
	require.Contains(t, a.complete(id, "", part).refused(t, 400), "already completed")
	require.Len(t, a.srv.Files(), 1)
	require.Equal(t, "abc", string(a.stored(a.srv.Files()[0].ID)))
}

// After a power cut any file may be short. That must not damage anything else.
func TestDamageIsSetAside(t *testing.T) {
	a := start(t, local.Options{})
	whole, short, lost := a.upload("batch", []byte("whole")), a.upload("batch", []byte("short")), a.upload("batch", []byte("lost"))
	infos := a.srv.Files()
	require.NoError(t, a.srv.Close())
	require.NoError(t, os.Truncate(filepath.Join(a.dir, "data", infos[1].UploadID, infos[1].Parts[0].ID), 2))
	require.NoError(t, os.Truncate(filepath.Join(a.dir, "files", lost+".json"), 0))

	for range 2 { // the second Open must not collect what the first one kept
		a = start(t, local.Options{Dir: a.dir})
		require.Equal(t, "whole", string(a.stored(whole)))
		o := a.get("/v1/files/"+short).object(t, append(fileMembers, "status_details")...)
		require.Equal(t, "error", o["status"])
		require.NotEmpty(t, a.get("/v1/files/"+lost).refused(t, 404))
		require.FileExists(t, filepath.Join(a.dir, "damaged", lost+".json"))
		require.FileExists(t, filepath.Join(a.dir, "data", infos[2].UploadID, infos[2].Parts[0].ID))

		_, err := a.try("GET", "/v1/files/"+short+"/content", "", nil)
		require.Error(t, err, "content that breaks off breaks the connection")
		require.NoError(t, a.srv.Close())
	}
}

// acknowledged is what a killed server has acknowledged to its clients.
type acknowledged struct {
	mu        sync.Mutex
	completed map[string]uint64 // file ID: seed of its content
	pending   map[string]string // Upload ID: its part
	deleted   []string
	count     int
}

const ackedSize = 100_000

// work is one client that makes every kind of call until the connection breaks.
func (k *acknowledged) work(a *api, seed uint64, tired func(int)) {
	note := func(f func()) {
		k.mu.Lock()
		f()
		k.count++
		n := k.count
		k.mu.Unlock()
		tired(n)
	}
	for ; ; seed += 2 {
		content := noise(seed, ackedSize)
		upload, err := a.tryID("POST", "/v1/uploads", "application/json", []byte(createBody(ackedSize)))
		if err != nil {
			return
		}
		contentType, body := form("data", "f", content)
		part, err := a.tryID("POST", "/v1/uploads/"+upload+"/parts", contentType, body)
		if err != nil {
			return
		}
		if seed%6 == 0 {
			note(func() { k.pending[upload] = part })
			continue
		}
		got, err := a.tryComplete(upload, "", part)
		if err != nil {
			return
		}
		file := got.object(a.t, uploadMembers...)["file"].(map[string]any)["id"].(string)
		if seed%6 == 2 {
			if _, err := a.tryID("DELETE", "/v1/files/"+file, "", nil); err != nil {
				return
			}
			note(func() { k.deleted = append(k.deleted, file) })
			continue
		}
		note(func() { k.completed[file] = seed })
	}
}

// TestKilledServerLosesNothing kills a server process (SIGKILL) under load, again and again over the same directory,
// and looks for everything that it had acknowledged.
func TestKilledServerLosesNothing(t *testing.T) {
	dir := t.TempDir()
	known := &acknowledged{completed: make(map[string]uint64), pending: make(map[string]string)}
	for round := range 4 {
		known.mu.Lock()
		target := known.count + 10 + 7*round
		known.mu.Unlock()
		killUnderLoad(t, dir, known, target)
	}
	a := start(t, local.Options{Dir: dir})
	require.NotEmpty(t, known.completed)
	require.NotEmpty(t, known.pending)
	require.NotEmpty(t, known.deleted)
	for file, seed := range known.completed {
		require.Equal(t, sum(noise(seed, ackedSize)), sum(a.stored(file)))
	}
	for upload, part := range known.pending {
		require.Equal(t, 200, a.complete(upload, "", part).status, upload)
	}
	for _, file := range known.deleted {
		require.NotEmpty(t, a.get("/v1/files/"+file).refused(t, 404))
	}
	require.Empty(t, temporary(t, a))
	owners := make(map[string]bool)
	for _, f := range a.srv.Files() {
		owners[f.UploadID] = true
	}
	for _, u := range a.srv.Uploads() {
		owners[u.ID] = owners[u.ID] || u.Status == "pending"
	}
	for _, owner := range dataOf(t, a) {
		require.True(t, owners[filepath.Base(owner)], "%s is garbage", owner)
	}
}

func killUnderLoad(t *testing.T, dir string, known *acknowledged, target int) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	child := exec.CommandContext(ctx, os.Args[0]) // a cancelled context is a SIGKILL
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	addr, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	a := client(t, addr[:len(addr)-1])

	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			known.work(a, uint64(2*i), func(n int) {
				if n >= target {
					kill()
				}
			})
		})
	}
	clients.Wait()
	require.ErrorContains(t, child.Wait(), "killed")
}
