package fusefs_test

import (
	"crypto/sha256"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// sentParts knows the contents of the parts that an API was sent. A chunk may be sent
// twice: in passthrough it looks full while its last bytes are being written. It is
// never sent twice with the same content.
type sentParts struct {
	mu       sync.Mutex // protects contents
	contents map[[sha256.Size]byte]int
}

// wrap is for stackOptions.Wrap.
func (p *sentParts) wrap(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || !strings.HasSuffix(r.URL.Path, "/parts") {
			api.ServeHTTP(w, r)
			return
		}
		body, copied := io.Pipe()
		var hashed sync.WaitGroup
		hashed.Go(func() { body.CloseWithError(p.read(multipart.NewReader(body, params["boundary"]))) })
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, copied), r.Body}
		api.ServeHTTP(w, r)
		copied.Close()
		hashed.Wait()
	})
}

// read counts the content of one part, and reads what follows it.
func (p *sentParts) read(form *multipart.Reader) error {
	for {
		field, err := form.NextPart()
		if err != nil {
			return err
		}
		h := sha256.New()
		if _, err := io.Copy(h, field); err != nil {
			return err
		}
		if field.FormName() == "data" {
			p.mu.Lock()
			p.contents[[sha256.Size]byte(h.Sum(nil))]++
			p.mu.Unlock()
		}
	}
}

// begin forgets what was sent.
func (p *sentParts) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.contents = map[[sha256.Size]byte]int{}
}

// nothingTwice checks that at least n contents were sent, and each once.
func (p *sentParts) nothingTwice(t testing.TB, n int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.GreaterOrEqual(t, len(p.contents), n)
	for _, times := range p.contents {
		require.Equal(t, 1, times, "each content is sent once")
	}
}
