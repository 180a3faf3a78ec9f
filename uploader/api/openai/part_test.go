package openai

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPartCanBeOpenedAgain(t *testing.T) {
	content := strings.Repeat("content ", 1000)
	p, err := newPart(io.NewSectionReader(strings.NewReader(content), 0, int64(len(content))))
	require.NoError(t, err)
	req := &http.Request{Header: http.Header{}}
	p.attach(req)
	first, err := io.ReadAll(req.Body)
	require.NoError(t, err)
	require.Len(t, first, int(req.ContentLength))
	require.Contains(t, string(first), content)
	require.EqualValues(t, len(content), p.read.Load())
	again, err := req.GetBody()
	require.NoError(t, err)
	second, err := io.ReadAll(again)
	require.NoError(t, err)
	require.True(t, bytes.Equal(first, second))
	require.NoError(t, p.close())
}

// TestClosedPartIsNotRead simulates a transport that still reads after the call has
// returned. The section's file may be closed then.
func TestClosedPartIsNotRead(t *testing.T) {
	content := strings.NewReader(strings.Repeat("content ", 1000))
	p, err := newPart(io.NewSectionReader(content, 0, content.Size()))
	require.NoError(t, err)
	body := p.open()
	_, err = io.CopyN(io.Discard, body, int64(len(p.head))+100)
	require.NoError(t, err)
	require.NoError(t, p.close())
	_, err = body.Read(make([]byte, 100))
	require.ErrorIs(t, err, errPartClosed)
	_, err = io.Copy(io.Discard, p.open())
	require.ErrorIs(t, err, errPartClosed, "nor in a body that is opened now")
}
