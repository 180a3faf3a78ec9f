package apitest

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"uploadfs/uploader/api"

	"github.com/stretchr/testify/require"
)

// Fixture is a Backend under test, with direct access to its server. Each test gets a
// fixture of its own.
type Fixture struct {
	Backend api.Backend

	// Content returns the bytes of a File.
	Content func(t testing.TB, fileID string) []byte

	// Expire makes an Upload expire. It may make all Uploads expire.
	Expire func(t testing.TB, uploadID string)

	// NullBytes makes the server answer Files without their size from now on.
	NullBytes func(t testing.TB)
}

// Suite checks that a Backend keeps the contract of [api.Backend] and that
// the rules of the API reach the caller with the right Kind.
func Suite(t *testing.T, open func(t *testing.T) Fixture) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Fixture)
	}{
		{"one part", testOnePart},
		{"parts in any order", testParallelParts},
		{"many uploads at once", testParallelUploads},
		{"unlisted part", testUnlistedPart},
		{"body from its first byte", testBodyFromStart},
		{"empty and oversized part", testPartSizes},
		{"progress of a part", testProgress},
		{"refused declarations", testBadSpecs},
		{"refused completions", testBadCompletes},
		{"after completion", testAfterCompletion},
		{"unknown upload", testUnknownUpload},
		{"expired upload", testExpiredUpload},
		{"cancel", testCancel},
		{"find files", testFindFiles},
		{"files of unknown size", testNullBytes},
		{"ended context", testEndedContext},
		{"broken body", testBrokenBody},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// spec declares content of a size.
func spec(size int) api.Spec {
	return api.Spec{Filename: "train.jsonl", Purpose: "batch", MimeType: "text/jsonl", Bytes: int64(size)}
}

// content returns reproducible bytes that are different everywhere.
func content(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	_, _ = r.Read(b) // never fails
	return b
}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func hexMD5(b []byte) string {
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:])
}

// create declares an Upload of size bytes.
func (f Fixture) create(t testing.TB, size int) string {
	t.Helper()
	up, err := f.Backend.Create(t.Context(), spec(size))
	require.NoError(t, err)
	require.NotEmpty(t, up.ID)
	return up.ID
}

func (f Fixture) add(t testing.TB, uploadID string, b []byte) string {
	t.Helper()
	id, err := f.Backend.AddPart(t.Context(), uploadID, section(b))
	require.NoError(t, err)
	require.NotEmpty(t, id)
	return id
}

// requireKind checks an error's Kind, and that its text is one line that names the
// Upload.
func requireKind(t testing.TB, want api.Kind, uploadID string, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, api.KindOf(err), "%v", err)
	e := (*api.Error)(nil)
	require.ErrorAs(t, err, &e)
	require.NotContains(t, err.Error(), "\n")
	require.Contains(t, err.Error(), uploadID)
	require.Equal(t, uploadID, e.UploadID)
}

func testOnePart(t *testing.T, f Fixture) {
	data := content(1 << 20)
	before := time.Now()
	declared := spec(len(data))
	declared.Expires = time.Hour
	up, err := f.Backend.Create(t.Context(), declared)
	require.NoError(t, err)
	require.NotEmpty(t, up.ID)
	require.True(t, up.ExpiresAt.After(before.Add(time.Minute)), "expires at %v", up.ExpiresAt)

	part := f.add(t, up.ID, data)
	file, err := f.Backend.Complete(t.Context(), up.ID, []string{part}, hexMD5(data))
	require.NoError(t, err)
	require.NotEmpty(t, file.ID)
	require.Equal(t, "train.jsonl", file.Filename)
	require.Equal(t, "batch", file.Purpose)
	require.Equal(t, int64(len(data)), file.Bytes)
	require.WithinDuration(t, before, file.CreatedAt, time.Minute)
	require.True(t, bytes.Equal(data, f.Content(t, file.ID)), "the File's bytes differ")
}

func testParallelParts(t *testing.T, f Fixture) {
	const parts, size = 9, 100_003
	data := content(parts * size)
	up := f.create(t, len(data))
	ids := make([]string, parts)
	var sending sync.WaitGroup
	for i := range parts {
		sending.Go(func() {
			// The last is sent first; they arrive in any order.
			n := parts - 1 - i
			id, err := f.Backend.AddPart(t.Context(), up, section(data[n*size:(n+1)*size]))
			if err != nil {
				t.Error(err)
			}
			ids[n] = id
		})
	}
	sending.Wait()
	file, err := f.Backend.Complete(t.Context(), up, ids, hexMD5(data))
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, f.Content(t, file.ID)), "the File's bytes differ")
}

func testParallelUploads(t *testing.T, f Fixture) {
	var sending sync.WaitGroup
	files := make([]string, 16)
	for i := range files {
		sending.Go(func() {
			data := content(1000 + i)
			up, err := f.Backend.Create(t.Context(), spec(len(data)))
			if err != nil {
				t.Error(err)
				return
			}
			part, err := f.Backend.AddPart(t.Context(), up.ID, section(data))
			if err != nil {
				t.Error(err)
				return
			}
			file, err := f.Backend.Complete(t.Context(), up.ID, []string{part}, hexMD5(data))
			if err != nil {
				t.Error(err)
			}
			files[i] = file.ID
		})
	}
	sending.Wait()
	for i, id := range files {
		require.True(t, bytes.Equal(content(1000+i), f.Content(t, id)), "the bytes of File %d differ", i)
	}
}

// A part whose answer was lost is sent again, and the first is never listed.
func testUnlistedPart(t *testing.T, f Fixture) {
	data := content(3000)
	up := f.create(t, len(data))
	f.add(t, up, data)
	second := f.add(t, up, data)
	file, err := f.Backend.Complete(t.Context(), up, []string{second}, "")
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, f.Content(t, file.ID)), "the File's bytes differ")
}

func testBodyFromStart(t *testing.T, f Fixture) {
	data := content(5000)
	whole := bytes.NewReader(append(content(77), data...))
	body := io.NewSectionReader(whole, 77, int64(len(data)))
	_, err := body.Seek(1234, io.SeekStart)
	require.NoError(t, err)
	up := f.create(t, 2*len(data))
	var ids []string
	for range 2 {
		id, err := f.Backend.AddPart(t.Context(), up, body)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	file, err := f.Backend.Complete(t.Context(), up, ids, "")
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(data, data...), f.Content(t, file.ID)), "the File's bytes differ")
}

func testProgress(t *testing.T, f Fixture) {
	data := content(1 << 20)
	up := f.create(t, len(data))
	var reports []int64
	ctx := api.WithProgress(t.Context(), func(acked int64) { reports = append(reports, acked) })
	_, err := f.Backend.AddPart(ctx, up, section(data))
	require.NoError(t, err)
	require.Zero(t, reports[0])
	require.EqualValues(t, len(data), reports[len(reports)-1])
	for _, acked := range reports {
		require.LessOrEqual(t, acked, int64(len(data)))
	}
}

// zeros is a file of any size that uses no memory.
type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

func testPartSizes(t *testing.T, f Fixture) {
	up := f.create(t, 1000)
	_, err := f.Backend.AddPart(t.Context(), up, io.NewSectionReader(zeros{}, 0, 0))
	requireKind(t, api.Refused, up, err)
	_, err = f.Backend.AddPart(t.Context(), up, io.NewSectionReader(zeros{}, 0, api.MaxPart+1))
	requireKind(t, api.TooLarge, up, err)
	f.add(t, up, content(1000)) // the refusals did not end the upload
}
