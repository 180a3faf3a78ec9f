//go:build linux

package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/api/local"
	"uploadfs/uploader/state"
)

const (
	crashPart  = 8 << 20         // the smallest there is
	crashBytes = 2*crashPart + 9 // three parts
)

// kill ends the daemon as nothing can prevent.
func (b *box) kill() {
	pid := b.pid()
	require.NoError(b, unix.Kill(pid, unix.SIGKILL))
	awaitEnd(b, pid)
}

// input makes a file of pseudo-random bytes outside the mount.
func (b *box) input(name string, size int) []byte {
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size)}).Read(content)
	require.NoError(b, os.WriteFile(filepath.Join(b.dir, name), content, 0o644))
	return content
}

// one checks that the file is completed, that its File has these bytes, and that
// there is no other of its name.
func (a *testAPI) one(b *box, name string, content []byte) {
	b.Helper()
	st := b.info(name)
	require.Equal(b, state.Completed, st.State, st.Error)
	var ids []string
	for _, f := range a.Files() {
		if f.Filename == name {
			ids = append(ids, f.ID)
		}
	}
	require.Equal(b, []string{st.FileID}, ids)
	r, err := a.OpenContent(st.FileID)
	require.NoError(b, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	require.NoError(b, err)
	require.True(b, bytes.Equal(content, got), "the File has other bytes")
}

// holdAt stops the last of three parts, or another call, where it is told to,
// and has the connection broken there when it is let go.
func (a *testAPI) holdAt(b *box, op local.Op, stage local.Stage, after int64) (reached <-chan struct{}, release func()) {
	held, gate := make(chan struct{}), make(chan struct{})
	var parts atomic.Int64
	var last, once atomic.Pointer[http.Request]
	a.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageHead && parts.Add(1) == 3 {
			last.Store(p.Request)
		}
		if p.Op != op || p.Stage != stage || p.Received < after || op == local.OpPart && last.Load() != p.Request {
			return nil
		}
		if !once.CompareAndSwap(nil, p.Request) {
			return nil
		}
		close(held)
		<-gate
		return &local.Fault{Reset: true}
	})
	release = sync.OnceFunc(func() { close(gate) })
	b.Cleanup(release)
	return held, release
}

// What a killed daemon leaves of a copy whose close had reached it goes on by
// itself, with the parts that were acknowledged.
func TestKilledWhileCloseWaits(t *testing.T) {
	for _, c := range []struct {
		name  string
		op    local.Op
		stage local.Stage
		after int64
		acked int // parts when it is killed
	}{
		{"at create", local.OpCreate, local.StageHead, 0, 0},
		{"in the middle of a part", local.OpPart, local.StageBody, 1, 2},
		{"at complete", local.OpComplete, local.StageHead, 0, 3},
		{"after the File exists", local.OpComplete, local.StageDone, 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachUser(t, func(b *box) {
				server := newAPI(b.T)
				server.use(b)
				b.mount("--part-size", "8MiB")
				content := b.input("in", crashBytes)
				reached, release := server.holdAt(b, c.op, c.stage, c.after)
				copied := make(chan result, 1)
				cp := b.command("cp", "in", filepath.Join(b.point, "f"))
				go func() { copied <- b.do(cp) }()
				<-reached
				b.await("what is acknowledged is known", func() bool {
					st := b.info("f")
					return st.Acked == c.acked && st.State == state.Uploading
				})
				b.kill()
				require.NotZero(b, (<-copied).code, "a copy fails when the daemon that answers its close is killed")
				release()

				b.mount("--part-size", "8MiB")
				b.ok("wait", filepath.Join(b.point, "f"))
				server.one(b, "f", content)
				stats := server.Stats()
				require.Equal(b, int64(3), stats.PartsStored, "no part is sent again")
				require.Equal(b, int64(1), stats.FilesCreated)
				b.ok("unmount", b.point)
			})
		})
	}
}

// openWriter writes a file whose size it has told, says so, and keeps it open.
const openWriter = `
exec 3> "$1"
setfattr -n user.uploadfs.size_hint -v $(stat -c %s "$0") "$1"
cat "$0" >&3
sync "$1"
echo in
read x
`

// A file that was open when the daemon died is kept and named, not uploaded by
// itself. A retry does not send again what the API has of it.
func TestKilledWhileOpen(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(b.T)
		server.use(b)
		b.mount("--part-size", "8MiB")
		content := b.input("in", crashBytes)
		b.shOK(`cp in "$M/before"`)
		parts := server.Stats().PartsStored

		writer := b.command("sh", "-c", openWriter, "in", filepath.Join(b.point, "f"))
		in, err := writer.StdinPipe()
		require.NoError(b, err)
		out, err := writer.StdoutPipe()
		require.NoError(b, err)
		require.NoError(b, writer.Start())
		_, err = io.ReadFull(out, make([]byte, 3))
		require.NoError(b, err)
		b.await("the parts go while the file is open", func() bool { return b.info("f").Acked == 3 })
		b.kill()
		in.Close()
		writer.Wait()

		b.mount("--part-size", "8MiB")
		st := b.info("f")
		require.Equal(b, state.Interrupted, st.State)
		require.Equal(b, 3, st.Acked)
		require.Contains(b, b.ok("status", b.point), "\n  interrupted  f  its writer did not close it")
		b.refused(1, "interrupted: its writer did not close it", "wait", filepath.Join(b.point, "f"))
		got, err := os.ReadFile(filepath.Join(b.state, "tree", "f"))
		require.NoError(b, err)
		require.True(b, bytes.Equal(content, got), "what was written is there")
		server.one(b, "before", content)
		require.Equal(b, int64(1), server.Stats().FilesCreated)

		b.ok("retry", filepath.Join(b.point, "f"))
		b.ok("wait", filepath.Join(b.point, "f"))
		server.one(b, "f", content)
		require.Equal(b, parts+3, server.Stats().PartsStored, "no part is sent again")
		b.ok("unmount", b.point)
	})
}

// Many files in all states survive a kill, and so does the mount that follows at
// once, killed while it recovers.
func TestKilledAgainAndAgain(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(b.T)
		server.use(b)
		started, release := server.block(b.T)
		b.mount("--close", "background", "--hold-for", "1h", "--exclude", "*.log")
		b.shOK(`cd "$M"; : > empty; echo held > held.tmp; echo never > never.log; mkdir d
			for i in 1 2 3 4 5 6 7 8 9; do echo content $i > d/$i; done
			ln d/1 link; mv d/2 moved; rm d/3; echo longer content > d/4`)
		<-started
		for range 3 {
			b.kill()
			b.mount("--close", "background", "--hold-for", "1h", "--exclude", "*.log")
		}
		states := b.status().Counts
		require.Equal(b, 1, states[state.Held])
		require.Equal(b, 1, states[state.Excluded])
		require.Equal(b, 8, states[state.Uploading]+states[state.Retrying])
		release()
		for name, content := range map[string]string{"link": "content 1\n", "moved": "content 2\n", "d/4": "longer content\n", "d/9": "content 9\n"} {
			b.ok("wait", filepath.Join(b.point, name))
			require.Equal(b, content, b.shOK(`cat "$M/`+name+`"`))
			r, err := server.OpenContent(b.info(name).FileID)
			require.NoError(b, err)
			got, err := io.ReadAll(r)
			require.NoError(b, err)
			require.NoError(b, r.Close())
			require.Equal(b, content, string(got))
		}
		b.await("each content is uploaded", func() bool { return b.status().Counts[state.Completed] == 8 })
		require.Equal(b, int64(8), server.Stats().FilesCreated)
		require.Equal(b, state.Held, b.info("held.tmp").State)
		require.Equal(b, state.Empty, b.info("empty").State)
		b.shOK(`mv "$M/held.tmp" "$M/final"`)
		b.ok("wait", filepath.Join(b.point, "final"))
		b.ok("unmount", b.point)
	})
}

// What is changed in the tree while nothing is mounted is found out.
func TestChangedWhileNotMounted(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	b.mount()
	b.shOK(`cd "$M"; echo same > touched; echo old > edited; echo old > longer; echo gone > removed`)
	b.ok("unmount", b.point)
	b.shOK(`cd state/tree; touch touched; printf new | dd of=edited conv=notrunc status=none; echo more >> longer; rm removed; echo made > new`)
	b.mount()
	for name, want := range map[string]state.State{
		"touched": state.Completed, "edited": state.Interrupted, "longer": state.Interrupted, "new": state.Interrupted,
	} {
		require.Equal(b, want, b.info(name).State, name)
	}
	require.Equal(b, 1, b.status().Counts[state.Completed])
	require.Contains(b, b.info("edited").Error, "changed while it was not mounted")
	require.Len(b, b.info("edited").Superseded, 1, "the File that it was is still known")
	for _, name := range []string{"edited", "longer", "new"} {
		b.ok("retry", filepath.Join(b.point, name))
		b.ok("wait", filepath.Join(b.point, name))
	}
	require.Equal(b, int64(4+3), server.Stats().FilesCreated)
	b.ok("unmount", b.point)
}
