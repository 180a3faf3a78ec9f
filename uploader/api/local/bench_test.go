package local_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"uploadfs/uploader/api/local"
)

// BenchmarkContent reads a File of four parts back.
func BenchmarkContent(b *testing.B) {
	const parts, size = 4, 64 << 20
	a := start(b, local.Options{})
	source := filepath.Join(b.TempDir(), "source")
	require.NoError(b, os.WriteFile(source, noise(1, size), 0o600))
	id := a.create(parts * size)
	var ids []string
	for range parts {
		require.NoError(b, a.streamFile(id, source, size))
		received := a.srv.Uploads()[0].Received
		ids = append(ids, received[len(received)-1].ID)
	}
	o := a.complete(id, "", ids...).object(b, uploadMembers...)
	b.SetBytes(parts * size)
	for b.Loop() {
		req, err := http.NewRequest("GET", "http://"+a.addr+"/v1/files/"+o["file"].(map[string]any)["id"].(string)+"/content", nil)
		require.NoError(b, err)
		req.Header.Set("Authorization", "Bearer "+testKey)
		resp, err := a.client.Do(req)
		require.NoError(b, err)
		n, err := io.Copy(io.Discard, resp.Body)
		require.NoError(b, err)
		require.EqualValues(b, parts*size, n)
		require.NoError(b, resp.Body.Close())
	}
}

// BenchmarkParts sends the parts of one file from the page cache, as a mount does, over as many connections.
func BenchmarkParts(b *testing.B) {
	const size = 64 << 20
	for _, parallel := range []int{1, 8} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			a := start(b, local.Options{})
			source := filepath.Join(b.TempDir(), "source")
			require.NoError(b, os.WriteFile(source, bytes.Repeat(noise(1, 1<<20), parallel*size>>20), 0o600))
			f, err := os.Open(source)
			require.NoError(b, err)
			defer f.Close()
			b.SetBytes(int64(parallel * size))
			for b.Loop() {
				id := a.create(parallel * size)
				var g errgroup.Group
				for i := range parallel {
					g.Go(func() error { return a.stream(id, io.NewSectionReader(f, int64(i)*size, size)) })
				}
				require.NoError(b, g.Wait())
				b.StopTimer()
				require.Equal(b, http.StatusOK, a.send("POST", "/v1/uploads/"+id+"/cancel", "", nil).status)
				b.StartTimer()
			}
		})
	}
}
