package apitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"uploadfs/uploader/api"

	"github.com/stretchr/testify/require"
)

func testBadSpecs(t *testing.T, f Fixture) {
	for name, test := range map[string]struct {
		change func(*api.Spec)
		want   api.Kind
	}{
		"purpose":   {func(s *api.Spec) { s.Purpose = "fine-tuna" }, api.Refused},
		"no bytes":  {func(s *api.Spec) { s.Bytes = 0 }, api.Refused},
		"too large": {func(s *api.Spec) { s.Bytes = api.MaxUpload + 1 }, api.TooLarge},
		"too brief": {func(s *api.Spec) { s.Expires = time.Minute }, api.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			bad := spec(10)
			test.change(&bad)
			_, err := f.Backend.Create(t.Context(), bad)
			requireKind(t, test.want, "", err)
		})
	}
}

func testBadCompletes(t *testing.T, f Fixture) {
	data := content(3000)
	up := f.create(t, len(data))
	first, second := f.add(t, up, data[:1000]), f.add(t, up, data[1000:])
	other := f.add(t, f.create(t, 1000), data[:1000])
	for name, test := range map[string]struct {
		parts []string
		md5   string
	}{
		"too few":      {[]string{first}, ""},
		"unknown part": {[]string{first, second, "part_unknown"}, ""},
		"another's":    {[]string{other, second}, ""},
		"twice":        {[]string{first, first, first}, ""},
		"wrong md5":    {[]string{first, second}, hexMD5(data[1:])},
		"wrong order":  {[]string{second, first}, hexMD5(data)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.Backend.Complete(t.Context(), up, test.parts, test.md5)
			requireKind(t, api.Refused, up, err)
			require.NotErrorIs(t, err, api.ErrOutcomeUnknown)
		})
	}
	file, err := f.Backend.Complete(t.Context(), up, []string{first, second}, hexMD5(data))
	require.NoError(t, err, "a refused completion must leave the upload as it is")
	require.True(t, bytes.Equal(data, f.Content(t, file.ID)), "the File's bytes differ")
}

func testAfterCompletion(t *testing.T, f Fixture) {
	data := content(100)
	up := f.create(t, len(data))
	part := f.add(t, up, data)
	file, err := f.Backend.Complete(t.Context(), up, []string{part}, "")
	require.NoError(t, err)

	_, err = f.Backend.AddPart(t.Context(), up, section(data))
	requireKind(t, api.Refused, up, err)
	requireKind(t, api.Refused, up, f.Backend.Cancel(t.Context(), up))
	_, err = f.Backend.Complete(t.Context(), up, []string{part}, "")
	requireKind(t, api.Refused, up, err)
	require.ErrorIs(t, err, api.ErrAlreadyCompleted, "the caller must learn that there is a File")
	require.ErrorIs(t, err, api.ErrOutcomeUnknown)
	e := (*api.Error)(nil)
	require.ErrorAs(t, err, &e)
	require.False(t, e.ServerTime.Before(file.CreatedAt), "answered at %v, the File is of %v", e.ServerTime, file.CreatedAt)
	require.WithinDuration(t, file.CreatedAt, e.ServerTime, time.Minute)
	found, err := f.Backend.FindFiles(t.Context(), spec(len(data)), file.CreatedAt)
	require.NoError(t, err)
	require.Equal(t, []api.File{file}, found)
}

func testUnknownUpload(t *testing.T, f Fixture) {
	const up = "upload_unknown"
	_, err := f.Backend.AddPart(t.Context(), up, section(content(10)))
	requireKind(t, api.Gone, up, err)
	_, err = f.Backend.Complete(t.Context(), up, []string{"part_unknown"}, "")
	requireKind(t, api.Gone, up, err)
	require.NoError(t, f.Backend.Cancel(t.Context(), up))
}

func testExpiredUpload(t *testing.T, f Fixture) {
	data := content(100)
	up := f.create(t, len(data))
	part := f.add(t, up, data)
	f.Expire(t, up)
	_, err := f.Backend.AddPart(t.Context(), up, section(data))
	requireKind(t, api.Gone, up, err)
	_, err = f.Backend.Complete(t.Context(), up, []string{part}, "")
	requireKind(t, api.Gone, up, err)
	require.NoError(t, f.Backend.Cancel(t.Context(), up))
}

func testCancel(t *testing.T, f Fixture) {
	data := content(100)
	up := f.create(t, len(data))
	part := f.add(t, up, data)
	require.NoError(t, f.Backend.Cancel(t.Context(), up))
	require.NoError(t, f.Backend.Cancel(t.Context(), up), "cancelled already")
	_, err := f.Backend.AddPart(t.Context(), up, section(data))
	requireKind(t, api.Gone, up, err)
	_, err = f.Backend.Complete(t.Context(), up, []string{part}, "")
	requireKind(t, api.Gone, up, err)
}

func testFindFiles(t *testing.T, f Fixture) {
	store := func(change func(*api.Spec)) api.File {
		s := spec(500)
		change(&s)
		up, err := f.Backend.Create(t.Context(), s)
		require.NoError(t, err)
		part := f.add(t, up.ID, content(int(s.Bytes)))
		file, err := f.Backend.Complete(t.Context(), up.ID, []string{part}, "")
		require.NoError(t, err)
		return file
	}
	first := store(func(*api.Spec) {})
	store(func(s *api.Spec) { s.Filename = "other.jsonl" })
	store(func(s *api.Spec) { s.Purpose = "evals" })
	store(func(s *api.Spec) { s.Bytes = 501 })
	second := store(func(*api.Spec) {})

	found, err := f.Backend.FindFiles(t.Context(), spec(500), first.CreatedAt)
	require.NoError(t, err)
	require.ElementsMatch(t, []api.File{first, second}, found)
	require.False(t, found[0].CreatedAt.Before(found[1].CreatedAt), "newest first")

	found, err = f.Backend.FindFiles(t.Context(), spec(500), second.CreatedAt.Add(time.Second))
	require.NoError(t, err)
	require.Empty(t, found, "nothing was made that late")

	found, err = f.Backend.FindFiles(t.Context(), spec(502), first.CreatedAt)
	require.NoError(t, err)
	require.Empty(t, found)

	for id, want := range map[string]bool{first.ID: true, second.ID: true, "file-other": false} {
		exists, err := api.FileCheckerOf(f.Backend).FileExists(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, want, exists, id)
	}
}

func testNullBytes(t *testing.T, f Fixture) {
	data := content(500)
	up := f.create(t, len(data))
	part := f.add(t, up, data)
	f.NullBytes(t)
	file, err := f.Backend.Complete(t.Context(), up, []string{part}, hexMD5(data))
	require.NoError(t, err)
	require.NotEmpty(t, file.ID)
	require.Zero(t, file.Bytes)
	found, err := f.Backend.FindFiles(t.Context(), spec(len(data)), file.CreatedAt)
	require.NoError(t, err)
	require.Equal(t, []api.File{file}, found)
}

func testEndedContext(t *testing.T, f Fixture) {
	data := content(100)
	up := f.create(t, len(data))
	part := f.add(t, up, data)
	reason := errors.New("the file was removed")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	calls := map[string]func() error{
		"create":   func() error { _, err := f.Backend.Create(ctx, spec(1)); return err },
		"part":     func() error { _, err := f.Backend.AddPart(ctx, up, section(data)); return err },
		"complete": func() error { _, err := f.Backend.Complete(ctx, up, []string{part}, ""); return err },
		"cancel":   func() error { return f.Backend.Cancel(ctx, up) },
		"find":     func() error { _, err := f.Backend.FindFiles(ctx, spec(1), time.Now()); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			err := call()
			require.ErrorIs(t, err, reason)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, api.ErrNotSent)
			require.NotErrorIs(t, err, api.ErrOutcomeUnknown)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := f.Backend.Complete(t.Context(), up, []string{part}, hexMD5(data))
	require.NoError(t, err, "calls with an ended context must have done nothing")
}

// brokenFile fails, or ends, in its middle.
type brokenFile struct {
	good int64
	err  error
}

func (b brokenFile) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), b.good-off))
	clear(p[:n])
	if n < int64(len(p)) {
		return int(n), b.err
	}
	return int(n), nil
}

func testBrokenBody(t *testing.T, f Fixture) {
	const size = 300_000
	up := f.create(t, size)
	for name, cause := range map[string]error{"error": errors.New("bad sector"), "shortened": io.EOF} {
		t.Run(name, func(t *testing.T) {
			body := io.NewSectionReader(brokenFile{size * 3 / 4, cause}, 0, size)
			_, err := f.Backend.AddPart(t.Context(), up, body)
			requireKind(t, api.Local, up, err)
			if cause != io.EOF {
				require.ErrorIs(t, err, cause)
			} else {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			}
		})
	}
	data := []byte(strings.Repeat(fmt.Sprintf("%08d\n", size), size/9+1))[:size]
	part := f.add(t, up, data)
	file, err := f.Backend.Complete(t.Context(), up, []string{part}, hexMD5(data))
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, f.Content(t, file.ID)), "the File's bytes differ")
}
