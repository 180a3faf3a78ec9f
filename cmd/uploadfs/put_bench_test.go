//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
	"uploadfs/uploader/api/plainsdk"
)

// BenchmarkPut sends a file of 1 GiB to `uploadfs serve`: with put, and with the
// official Go SDK as its documentation says, one part after the other and eight at
// once; the same with the MD5, which the server compares; and the parts alone, with
// nothing but reading and sending, for what the server takes. All are of one run,
// since only their ratios mean anything on a machine that others use.
func BenchmarkPut(b *testing.B) {
	const total = 1 << 30
	dir, err := os.MkdirTemp(base, "bench-")
	require.NoError(b, err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	plain := filepath.Join(dir, "uploadfs") // without the race detector
	out, err := exec.Command("go", "build", "-o", plain, ".").CombinedOutput()
	require.NoError(b, err, "%s", out)
	f, err := os.Create(filepath.Join(dir, "f"))
	require.NoError(b, err)
	defer f.Close()
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for i := range total / len(block) {
		copy(block, fmt.Sprint(i))
		_, err := f.Write(block)
		require.NoError(b, err)
	}
	require.NoError(b, f.Sync())

	server := exec.Command(plain, "serve", "--listen", "127.0.0.1:0", "--dir", filepath.Join(dir, "files"))
	stdout, err := server.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, server.Start())
	b.Cleanup(func() {
		require.NoError(b, server.Process.Signal(os.Interrupt))
		require.NoError(b, server.Wait())
	})
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	require.NoError(b, err)
	s := &served{url: strings.TrimSpace(string(line[:n]))}
	client, ctx := sdk(s, 0), context.Background()

	put := func(flags ...string) func(*testing.B) string {
		return func(b *testing.B) string {
			cmd := exec.Command(plain, append([]string{"put", "--quiet", "--again", "--state-dir", filepath.Join(dir, "state")}, append(flags, f.Name())...)...)
			cmd.Env = append(os.Environ(), "OPENAI_API_KEY="+testKey, "OPENAI_BASE_URL="+s.url)
			out, err := cmd.Output()
			require.NoError(b, err)
			return strings.TrimSpace(string(out))
		}
	}
	send := func(b *testing.B, u plainsdk.Upload) string {
		u.Client, u.Params, u.PartSize = client, newUpload(total), api.MaxPart
		id, err := u.Send(ctx, f)
		require.NoError(b, err)
		return id
	}
	withSDK := func(parallel int, checksum bool) func(*testing.B) string {
		return func(b *testing.B) string { return send(b, plainsdk.Upload{Parallel: parallel, MD5: checksum}) }
	}
	streamed := func(parallel int) func(*testing.B) string {
		return func(b *testing.B) string {
			stream, err := openai.New(openai.Config{BaseURL: s.url, Slots: parallel})
			require.NoError(b, err)
			defer stream.Close()
			return send(b, plainsdk.Upload{Parallel: parallel, AddPart: stream.AddPart})
		}
	}
	for _, way := range []struct {
		name string
		send func(*testing.B) string
	}{
		{"put", put("--checksum", "none")},
		{"sdk,parallel=1", withSDK(1, false)},
		{"sdk,parallel=8", withSDK(8, false)},
		{"put,md5", put()},
		{"sdk,md5,parallel=1", withSDK(1, true)},
		{"sdk,md5,parallel=8", withSDK(8, true)},
		{"server,parallel=1", streamed(1)},
		{"server,parallel=8", streamed(8)},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(total)
			for b.Loop() {
				id := way.send(b)
				b.StopTimer()
				_, err := client.Files.Delete(ctx, id)
				require.NoError(b, err)
				b.StartTimer()
			}
		})
	}
}
