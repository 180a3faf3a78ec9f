package local

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// smallest is the smallest buffer that newFormReader promises to work with; a small one brings its ends and the
// delimiters together.
const smallest = 1 << 10

// readAll reads a form into name, filename and content of its fields.
func readAll(src io.Reader, boundary string) (fields []string, err error) {
	form := newFormReader(src, boundary, make([]byte, smallest))
	for {
		field, err := form.NextField()
		if err == io.EOF {
			return fields, form.Finish()
		}
		if err != nil {
			return fields, err
		}
		var content bytes.Buffer
		if _, err := form.WriteTo(&content); err != nil {
			return fields, err
		}
		fields = append(fields, fmt.Sprintf("%s %s %q", field.Name, field.Filename, content.String()))
	}
}

// pieces reads from r in pieces of n bytes.
type pieces struct {
	r io.Reader
	n int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

// FuzzForm checks two properties. First: any content is read back as the standard writer wrote it, however it arrives
// and whatever delimiter-like bytes it has. Second: this reader and the standard one read the same fields from any body
// that both accept.
func FuzzForm(f *testing.F) {
	const head = "--b\r\nContent-Disposition: form-data; name=\"data\"; filename=\"f\"\r\n\r\n"
	for _, content := range []string{
		"", "x", "\r", "\r\n", "\r\n-", "\r\n--", "\r\n--b", "\r\n--b-", "\r\n--bb", "\r\n--b x", "\r\n--b\r", "\r\n--b\rx",
		"\r\n--b \t \r", "\r\r\n--b", "\n--b--", "--b--", strings.Repeat("\r\n", 2000), strings.Repeat("\r\n--", 1000),
		strings.Repeat("x", smallest-len(head)-2) + "\r\n--a", strings.Repeat("x", 5000),
	} {
		f.Add([]byte(content), uint(1))
		f.Add([]byte(head+content+"\r\n--b--\r\n"), uint(7))
		f.Add([]byte("preamble\r\n"+head+content+"\r\n--b \t\r\n"+head[5:]+"y\r\n--b--\r\nepilogue"), uint(1000))
		f.Add([]byte(head+content), uint(3))
	}
	f.Fuzz(func(t *testing.T, content []byte, piece uint) {
		step := int(piece%2000) + 1
		roundTrip(t, content, step)
		sameAsStandard(t, content, step)
	})
}

func roundTrip(t *testing.T, content []byte, step int) {
	// The writer must choose a boundary that the content does not contain.
	content = bytes.ReplaceAll(content, []byte("\r\n--b"), []byte("\r\n--a"))
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	require.NoError(t, w.SetBoundary("b"))
	for _, name := range []string{"one", "two"} {
		field, err := w.CreateFormFile(name, "f")
		require.NoError(t, err)
		_, err = field.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	fields, err := readAll(pieces{&body, step}, "b")
	require.NoError(t, err)
	if want := []string{fmt.Sprintf("one f %q", content), fmt.Sprintf("two f %q", content)}; !slices.Equal(want, fields) {
		t.Fatalf("%.400q came out as %.400q", content, fields)
	}
}

func sameAsStandard(t *testing.T, body []byte, step int) {
	got, err := readAll(pieces{bytes.NewReader(body), step}, "b")
	if err != nil {
		require.ErrorIs(t, err, errForm)
		return
	}
	// Two liberties of the standard reader: lines may end in a bare LF, and an empty field needs no line of its own.
	bareLF := bytes.Count(body, []byte("\n")) != bytes.Count(body, []byte("\r\n"))
	if bareLF || bytes.Contains(body, []byte("\r\n\r\n--b")) {
		return
	}
	if want, err := standard(body); err == nil && fmt.Sprint(want) != fmt.Sprint(got) {
		t.Fatalf("%.400q is to the standard reader\n%.400q, and to ours\n%.400q", body, want, got)
	}
}

// standard is readAll with the standard library's reader.
func standard(body []byte) (fields []string, err error) {
	r := multipart.NewReader(bytes.NewReader(body), "b")
	for {
		field, err := r.NextRawPart()
		if err == io.EOF {
			return fields, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(field)
		if err != nil {
			return nil, err
		}
		_, params, err := mime.ParseMediaType(field.Header.Get("Content-Disposition"))
		if err != nil {
			return nil, err
		}
		fields = append(fields, fmt.Sprintf("%s %s %q", params["name"], params["filename"], content))
	}
}

// Wherever a body is cut, the form is refused; and an error of the source comes out as it is.
func TestFormCutShort(t *testing.T) {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	field, err := w.CreateFormFile("data", "f")
	require.NoError(t, err)
	_, err = io.WriteString(field, strings.Repeat("x\r\n", 1000))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	whole := body.Bytes()
	broken := errors.New("broken")
	for n := range len(whole) - len("\r\n") { // the last line end may be missing
		_, err := readAll(bytes.NewReader(whole[:n]), w.Boundary())
		require.ErrorIs(t, err, errForm, n)
		_, err = readAll(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken)), w.Boundary())
		require.ErrorIs(t, err, broken, n)
	}
	for _, r := range []io.Reader{
		bytes.NewReader(whole), iotest.DataErrReader(bytes.NewReader(whole)), iotest.OneByteReader(bytes.NewReader(whole)),
	} {
		fields, err := readAll(r, w.Boundary())
		require.NoError(t, err)
		require.Len(t, fields, 1)
	}
}

func TestIDs(t *testing.T) {
	for _, prefix := range []string{uploadPrefix, partPrefix, filePrefix} {
		id := newID(prefix)
		require.True(t, validID(prefix, id), id)
		require.NotEqual(t, id, newID(prefix))
		for _, bad := range []string{"", prefix, id + "a", id[:len(id)-1], id[:len(id)-1] + "/", id[:len(id)-1] + "A", "x" + id[1:]} {
			require.False(t, validID(prefix, bad), bad)
		}
	}
}
