package local

import (
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"time"
)

// contentStride is the number of bytes sent under one write deadline. A client that takes less than this in
// StallTimeout is disconnected.
const contentStride = 1 << 20

// fileContent answers GET /v1/files/{id}/content.
func (s *Server) fileContent(c *call) (any, error) {
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.liveFile(c.id)
	if err != nil {
		return nil, err
	}
	if f.Purpose == "assistants" || f.Purpose == "user_data" {
		return nil, badRequest("", "Not allowed to download files of purpose: %s", f.Purpose)
	}
	window, err := parseRange(c.r.Header.Get("Range"), f.Bytes)
	if err != nil {
		return nil, err
	}
	return &download{file: f, window: window}, nil
}

// download sends a File's content, or a window of it.
type download struct {
	file   *file
	window window
}

func (d *download) send(c *call) error {
	f := d.file
	if !c.s.acquire(f) {
		return noSuchFile(f.ID)
	}
	defer c.s.release(f)

	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Filename}))
	h.Set("Content-Length", strconv.FormatInt(d.window.size, 10))
	h.Set("Accept-Ranges", "bytes")
	status := http.StatusOK
	if d.window.partial {
		status = http.StatusPartialContent
		h.Set("Content-Range", d.window.contentRange(f.Bytes))
	}
	c.status = status
	c.w.WriteHeader(status)

	content := newContentReader(c.s.store, f.Owner, f.Parts)
	defer content.Close()
	content.skip(d.window.offset)
	for left := d.window.size; left > 0; {
		src, size, err := content.current()
		if err != nil {
			return err
		}
		n := c.pace.bound(min(left, size, contentStride))
		c.rc.SetWriteDeadline(time.Now().Add(c.s.opt.StallTimeout))
		if c.stopped() {
			return closing()
		}
		// net/http turns a CopyN from a file into sendfile.
		sent, err := io.CopyN(c.w, src, n)
		c.sent += sent
		if err != nil {
			return err
		}
		content.consumed(n)
		left -= n
		c.pace.wait(c, int(n))
	}
	return nil
}

// acquire counts a reader of f, unless its bytes are gone.
func (s *Server) acquire(f *file) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[f.ID] != f {
		return false
	}
	f.readers++
	return true
}

// contentReader reads parts in their order as one stream. It has one file open at a time.
type contentReader struct {
	st    *store
	owner string
	parts []partRecord // parts[0] is the current one
	at    int64        // in it
	f     *os.File     // it, once opened
}

func newContentReader(st *store, owner string, parts []partRecord) *contentReader {
	return &contentReader{st: st, owner: owner, parts: parts}
}

// current returns the current file and how many bytes it still has, or io.EOF after the last file. The caller reports
// what it has read with consumed.
func (r *contentReader) current() (*os.File, int64, error) {
	for len(r.parts) > 0 && r.at == r.parts[0].Bytes {
		if err := r.Close(); err != nil {
			return nil, 0, err
		}
		r.parts, r.at = r.parts[1:], 0
	}
	if len(r.parts) == 0 {
		return nil, 0, io.EOF
	}
	if r.f == nil {
		f, err := r.st.openPart(r.owner, r.parts[0].ID)
		if err != nil {
			return nil, 0, err
		}
		r.f = f
		if _, err := f.Seek(r.at, io.SeekStart); err != nil {
			return nil, 0, err
		}
	}
	return r.f, r.parts[0].Bytes - r.at, nil
}

func (r *contentReader) consumed(n int64) { r.at += n }

// skip skips n bytes. It must be called before the first read.
func (r *contentReader) skip(n int64) {
	for len(r.parts) > 0 && n >= r.parts[0].Bytes {
		n -= r.parts[0].Bytes
		r.parts = r.parts[1:]
	}
	r.at = n
}

func (r *contentReader) Read(p []byte) (int, error) {
	f, left, err := r.current()
	if err != nil {
		return 0, err
	}
	n, err := f.Read(p[:min(int64(len(p)), left)])
	r.consumed(int64(n))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // the part is shorter than its record says
	}
	return n, err
}

func (r *contentReader) Close() error {
	if r.f == nil {
		return nil
	}
	f := r.f
	r.f = nil
	return f.Close()
}
