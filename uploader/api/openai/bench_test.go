package openai_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/openai"
)

// BenchmarkParts sends eight parts of 64 MiB at once from one file to a server
// that drops them. The server's work, in the same process, is in the figures.
func BenchmarkParts(b *testing.B) {
	const parallel, size = 8, 64 << 20
	path := filepath.Join(b.TempDir(), "part")
	require.NoError(b, os.WriteFile(path, make([]byte, size), 0o600))
	file, err := os.Open(path)
	require.NoError(b, err)
	b.Cleanup(func() { _ = file.Close() })

	for _, scheme := range []string{"http", "https"} {
		b.Run(scheme, func(b *testing.B) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(discard))
			if scheme == "https" {
				server.StartTLS()
			} else {
				server.Start()
			}
			b.Cleanup(server.Close)
			backend := newBackend(b, server.URL, openai.Config{Slots: parallel, TLS: &tls.Config{InsecureSkipVerify: true}})
			b.SetBytes(parallel * size)
			b.ReportAllocs()
			for b.Loop() {
				var sending sync.WaitGroup
				for range parallel {
					sending.Go(func() {
						if _, err := backend.AddPart(b.Context(), "upload_1", io.NewSectionReader(file, 0, size)); err != nil {
							b.Error(err)
						}
					})
				}
				sending.Wait()
			}
		})
	}
}
