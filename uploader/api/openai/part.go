package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"sync"
	"sync/atomic"
)

// errPartClosed ends a read of a part whose call has returned.
var errPartClosed = errors.New("the part is closed")

// part is the multipart body of one AddPart: a few bytes of framing around the
// section. The section is read while it is sent, and is never held in memory.
//
// open is called once for each time that the request is written. The transport may
// still be reading when a call has been answered or cancelled. close ends that, so
// the section is never read after the call has returned.
type part struct {
	head, tail  []byte
	contentType string
	section     *io.SectionReader
	read        atomic.Int64 // bytes of the section that were read for the request under way

	// mu is held during every read of the section.
	mu     sync.Mutex
	closed bool
	err    error // the first error of the section
}

// newPart frames section.
func newPart(section *io.SectionReader) (*part, error) {
	var frame bytes.Buffer
	w := multipart.NewWriter(&frame)
	// The API refuses a part without a filename. Azure refuses one without a type.
	_, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="data"; filename="part"`},
		"Content-Type":        {"application/octet-stream"},
	})
	if err != nil {
		return nil, err
	}
	head := frame.Len()
	if err := w.Close(); err != nil {
		return nil, err
	}
	return &part{
		head:        frame.Bytes()[:head],
		tail:        frame.Bytes()[head:],
		contentType: w.FormDataContentType(),
		section:     section,
	}, nil
}

// attach makes the part the body of req, with its exact length.
func (p *part) attach(req *http.Request) {
	req.Header.Set("Content-Type", p.contentType)
	req.ContentLength = int64(len(p.head)) + p.section.Size() + int64(len(p.tail))
	req.GetBody = func() (io.ReadCloser, error) { return p.open(), nil }
	req.Body = p.open()
}

// open returns the whole body from its first byte.
func (p *part) open() io.ReadCloser {
	p.read.Store(0)
	content := &partContent{part: p, left: p.section.Size()}
	return io.NopCloser(io.MultiReader(bytes.NewReader(p.head), content, bytes.NewReader(p.tail)))
}

// close ends all reading of the section and waits for a read that is under way.
// It returns the error that the section gave, if any.
func (p *part) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.err
}

// partContent reads the section once, from its first byte.
type partContent struct {
	part *part
	off  int64
	left int64
}

func (c *partContent) Read(b []byte) (int, error) {
	p := c.part
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, errPartClosed
	}
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := p.section.ReadAt(b[:min(int64(len(b)), c.left)], c.off)
	c.off += int64(n)
	c.left -= int64(n)
	p.read.Store(c.off)
	switch {
	case n > 0 && (err == io.EOF || err == nil):
		return n, nil
	case err == io.EOF:
		err = fmt.Errorf("the file became shorter while it was sent: %w", io.ErrUnexpectedEOF)
	}
	if err != nil && p.err == nil {
		p.err = err
	}
	return n, err
}
