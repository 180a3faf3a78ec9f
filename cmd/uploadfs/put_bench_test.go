//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	openaisdk "github.com/openai/openai-go/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
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
			cmd := exec.Command(plain, append([]string{"put", "--quiet", "--state-dir", filepath.Join(dir, "state")}, append(flags, f.Name())...)...)
			cmd.Env = append(os.Environ(), "OPENAI_API_KEY="+testKey, "OPENAI_BASE_URL="+s.url)
			out, err := cmd.Output()
			require.NoError(b, err)
			return strings.TrimSpace(string(out))
		}
	}
	// parts sends them with add and completes the Upload, with the MD5 if there is one.
	parts := func(b *testing.B, parallel int, sum string, add func(upload string, r *io.SectionReader) (string, error)) string {
		upload, err := client.Uploads.New(ctx, newUpload(total))
		require.NoError(b, err)
		ids := make([]string, total/api.MaxPart)
		var g errgroup.Group
		g.SetLimit(parallel)
		for i := range ids {
			g.Go(func() (err error) {
				ids[i], err = add(upload.ID, io.NewSectionReader(f, int64(i)*api.MaxPart, api.MaxPart))
				return err
			})
		}
		require.NoError(b, g.Wait())
		params := openaisdk.UploadCompleteParams{PartIDs: ids}
		if sum != "" {
			params.Md5 = openaisdk.String(sum)
		}
		done, err := client.Uploads.Complete(ctx, upload.ID, params)
		require.NoError(b, err)
		return done.File.ID
	}
	withSDK := func(parallel int, checksum bool) func(*testing.B) string {
		return func(b *testing.B) string {
			sum := ""
			if checksum {
				h := md5.New()
				_, err := io.Copy(h, io.NewSectionReader(f, 0, total))
				require.NoError(b, err)
				sum = hex.EncodeToString(h.Sum(nil))
			}
			return parts(b, parallel, sum, func(upload string, r *io.SectionReader) (string, error) {
				p, err := client.Uploads.Parts.New(ctx, upload, openaisdk.UploadPartNewParams{Data: r})
				if err != nil {
					return "", err
				}
				return p.ID, nil
			})
		}
	}
	streamed := func(parallel int) func(*testing.B) string {
		return func(b *testing.B) string {
			client, err := openai.New(openai.Config{BaseURL: s.url, Slots: parallel})
			require.NoError(b, err)
			defer client.Close()
			return parts(b, parallel, "", func(upload string, r *io.SectionReader) (string, error) { return client.AddPart(ctx, upload, r) })
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
