package local

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/textproto"
	"sync"
)

// Why not mime/multipart: its reader returns 4 KiB at a time, one system call each, and stays below 0.5 GB/s between a
// socket and a file. This reader searches for the delimiter in the large buffer that the socket was read into, and
// writes to the file from the same buffer. It takes no shortcuts (a Content-Length, a single field), so it is correct
// for every form.

const (
	formBufferSize = 1 << 20
	fillBatch      = 512 << 10
	maxFieldHeader = 8 << 10
	maxPadding     = 64       // blanks that RFC 2046 allows between a delimiter and its line end
	maxEpilogue    = 64 << 10 // what may follow the closing delimiter
)

var formBuffers = sync.Pool{New: func() any { return new([formBufferSize]byte) }}

// withBuffer lends a large buffer.
func withBuffer(use func(buf []byte)) {
	buf := formBuffers.Get().(*[formBufferSize]byte)
	defer formBuffers.Put(buf)
	use(buf[:])
}

// errForm is a body that is not a well-formed multipart/form-data body.
var errForm = errors.New("malformed multipart body")

// formField is the head of one field of a form.
type formField struct {
	Name        string
	Filename    string
	ContentType string
}

// formReader reads a multipart/form-data body field by field. One goroutine uses it.
//
// Errors of the source are returned as they are; errors of the form wrap errForm.
type formReader struct {
	src   io.Reader
	delim []byte     // CRLF, two dashes, boundary
	skip  [256]uint8 // by the byte under the delimiter's last: how far the delimiter may move on
	buf   []byte
	start int   // buf[start:end] is read but not consumed
	end   int   //
	err   error // what src returned last; sticky

	inField bool // a field's content is not consumed yet
	closed  bool // the closing delimiter was seen
}

// newFormReader reads src, whose fields are separated by boundary, through buf (at least 1 KiB).
func newFormReader(src io.Reader, boundary string, buf []byte) *formReader {
	f := &formReader{src: src, delim: []byte("\r\n--" + boundary), buf: buf, inField: true}
	for c := range f.skip {
		f.skip[c] = uint8(len(f.delim))
	}
	for i, c := range f.delim[:len(f.delim)-1] {
		f.skip[c] = uint8(len(f.delim) - 1 - i)
	}
	// The first delimiter need not follow a line end. With one added, the preamble is a field to skip.
	f.end = copy(f.buf, "\r\n")
	return f
}

// NextField skips what is left of the field before and returns the head of the next. After the last field it returns
// io.EOF.
func (f *formReader) NextField() (*formField, error) {
	if f.inField {
		if _, err := f.WriteTo(io.Discard); err != nil {
			return nil, err
		}
	}
	if f.closed {
		return nil, io.EOF
	}
	head, err := f.fieldHeader()
	if err != nil {
		return nil, err
	}
	f.inField = true
	disposition, params, err := mime.ParseMediaType(head.Get("Content-Disposition"))
	if err != nil || disposition != "form-data" || params["name"] == "" {
		return nil, fmt.Errorf("%w: a field without a name", errForm)
	}
	return &formField{Name: params["name"], Filename: params["filename"], ContentType: head.Get("Content-Type")}, nil
}

// WriteTo writes what is left of the field's content to w.
func (f *formReader) WriteTo(w io.Writer) (n int64, err error) {
	for f.inField {
		run, err := f.content()
		if err != nil {
			return n, err
		}
		if len(run) == 0 {
			continue
		}
		m, err := w.Write(run)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Value returns the field's content, which must not be longer than most bytes.
func (f *formReader) Value(most int) (string, error) {
	var b bytes.Buffer
	if _, err := f.WriteTo(&capWriter{w: &b, left: int64(most), err: fmt.Errorf("%w: a value is too long", errForm)}); err != nil {
		return "", err
	}
	return b.String(), nil
}

// Finish reads the body to its end. So a truncated body is detected, and the connection can be used again.
func (f *formReader) Finish() error {
	for seen := 0; ; {
		seen += f.end - f.start
		f.start, f.end = 0, 0
		err := f.fill()
		switch {
		case seen > maxEpilogue:
			return fmt.Errorf("%w: too much after the closing delimiter", errForm)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// content consumes and returns the next run of the field's content, valid until the next call. At the field's end it
// consumes the delimiter, clears inField and returns an empty run.
func (f *formReader) content() ([]byte, error) {
	for {
		data := f.buf[f.start:f.end]
		i := f.find(data)
		switch {
		case i > 0:
			return f.consume(i), nil
		case i == 0:
			isDelim, err := f.delimiter()
			if err != nil {
				return nil, err
			}
			if isDelim {
				f.inField = false
				return nil, nil
			}
			// The content has a line that begins like the delimiter. A delimiter has one CR, so none overlaps this one.
			return f.consume(len(f.delim)), nil
		}
		// The end of data may be the beginning of a delimiter.
		safe := len(data)
		if cr := bytes.LastIndexByte(data[max(0, len(data)-len(f.delim)+1):], '\r'); cr >= 0 {
			safe = max(0, len(data)-len(f.delim)+1) + cr
		}
		if safe > 0 {
			return f.consume(safe), nil
		}
		if err := f.more("the closing delimiter is missing"); err != nil {
			return nil, err
		}
	}
}

// find returns the index of the delimiter in data, or -1. It uses Horspool's search, which reads about one byte of
// each delimiter's length. bytes.Index would stop at each of the many line ends of random content.
func (f *formReader) find(data []byte) int {
	last := len(f.delim) - 1
	for end := last; end < len(data); end += int(f.skip[data[end]]) {
		if data[end] == f.delim[last] && bytes.Equal(data[end-last:end+1], f.delim) {
			return end - last
		}
	}
	return -1
}

// delimiter reports whether the delimiter-like bytes at start are one: only blanks, or two dashes and blanks, may follow
// on the line. It consumes a delimiter, but not its line end, which fieldHeader needs.
func (f *formReader) delimiter() (bool, error) {
	for {
		rest, closing := bytes.CutPrefix(f.buf[f.start+len(f.delim):f.end], []byte("--"))
		line := bytes.TrimLeft(rest, " \t")
		padding := len(rest) - len(line)
		atEnd := f.err == io.EOF
		switch {
		case padding > maxPadding:
			return false, fmt.Errorf("%w: too many blanks after a delimiter", errForm)
		case bytes.HasPrefix(line, []byte("\r\n")), closing && len(line) == 0 && atEnd:
			f.start = f.end - len(line)
			f.closed = closing
			return true, nil
		case len(line) > 1, len(line) == 1 && line[0] != '\r' && (line[0] != '-' || closing || padding > 0):
			return false, nil
		case atEnd:
			return false, fmt.Errorf("%w: the body ends within a delimiter", errForm)
		}
		if err := f.fill(); err != nil && err != io.EOF {
			return false, err
		}
	}
}

// fieldHeader consumes and parses the header of a field, from the line end of its delimiter to the empty line.
func (f *formReader) fieldHeader() (textproto.MIMEHeader, error) {
	for {
		data := f.buf[f.start:f.end]
		i := bytes.Index(data, []byte("\r\n\r\n"))
		if i > maxFieldHeader || i < 0 && len(data) > maxFieldHeader {
			return nil, fmt.Errorf("%w: the head of a field is too long", errForm)
		}
		if i >= 0 {
			head := f.consume(i + 4)[2:]
			if i == 0 { // no header lines at all: the two line ends are one and the same empty line
				return textproto.MIMEHeader{}, nil
			}
			h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(head))).ReadMIMEHeader()
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errForm, err)
			}
			return h, nil
		}
		if err := f.more("the body ends within the head of a field"); err != nil {
			return nil, err
		}
	}
}

func (f *formReader) consume(n int) []byte {
	run := f.buf[f.start : f.start+n]
	f.start += n
	return run
}

// more reads more of the body. The end of the body is an error that says what is missing.
func (f *formReader) more(missing string) error {
	err := f.fill()
	if err == io.EOF {
		return fmt.Errorf("%w: %s", errForm, missing)
	}
	return err
}

// fill moves the unconsumed bytes to the front of the buffer and reads a batch behind them. The batch is smaller where
// the buffer is full or the body ends. A socket returns less per read, and small writes to a file cost more.
func (f *formReader) fill() error {
	if f.start > 0 {
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	}
	if f.end == len(f.buf) {
		return fmt.Errorf("%w: a line is too long", errForm)
	}
	before := f.end
	for f.err == nil && f.end < min(before+fillBatch, len(f.buf)) {
		var n int
		n, f.err = f.src.Read(f.buf[f.end:])
		f.end += n
	}
	if f.end > before {
		return nil
	}
	return f.err
}

// capWriter writes at most left bytes to w, and returns err for more.
type capWriter struct {
	w    io.Writer
	left int64
	err  error
}

func (c *capWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		return 0, c.err
	}
	n, err := c.w.Write(p)
	c.left -= int64(n)
	return n, err
}
