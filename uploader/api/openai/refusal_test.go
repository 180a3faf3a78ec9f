package openai

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"uploadfs/uploader/api"

	"github.com/stretchr/testify/require"
)

func TestKinds(t *testing.T) {
	const up = "upload_1"
	for _, test := range []struct {
		op, uploadID string
		status       int
		message      string
		code         string
		want         api.Kind
	}{
		{opCreate, "", 400, "'fine-tuna' is not one of ['fine-tune', 'assistants'] - 'purpose'", "", api.Refused},
		{opCreate, "", 400, "File is too large.", "", api.TooLarge},
		{opCreate, "", 400, "The maximum allowed file size is 8 GB.", "", api.TooLarge},
		{opCreate, "", 400, "Invalid 'expires_after': it must be at least 3600.", "", api.Refused},
		{opCreate, "", 404, "Invalid URL (POST /uploads)", "", api.Refused},
		{opCreate, "", 401, "Incorrect API key provided: sk-x.", "invalid_api_key", api.Denied},
		{opCreate, "", 403, "You have insufficient permissions for this operation.", "", api.Denied},
		{opCreate, "", 429, "You exceeded your current quota.", "insufficient_quota", api.Quota},
		{opCreate, "", 429, "Rate limit reached.", "rate_limit_exceeded", api.Transient},
		{opCreate, "", 302, "", "", api.Refused},
		{opCreate, "", 501, "", "", api.Refused},
		{opPart, up, 501, "Unsupported.", "", api.Refused},
		{opPart, up, 505, "", "", api.Refused},
		{opCreate, "", 422, "Unprocessable.", "", api.Refused},
		{opPart, up, 408, "", "", api.Transient},
		{opPart, up, 409, "Conflict.", "", api.Transient},
		{opPart, up, 500, "The upload has expired.", "", api.Transient},
		{opPart, up, 503, "", "", api.Transient},
		{opPart, up, 599, "", "", api.Transient},
		{opPart, up, 404, "No such Upload object: upload_1", "", api.Gone},
		{opPart, up, 404, "", "", api.Gone},
		{opPart, up, 400, "Upload upload_1 has expired.", "", api.Gone},
		{opPart, up, 400, "upload_1 is expired", "", api.Gone},
		{opPart, up, 400, "No such upload: upload_1", "", api.Gone},
		{opPart, up, 400, "Upload upload_1 is already cancelled.", "", api.Gone},
		{opPart, up, 400, "Upload upload_1 is already completed.", "", api.Refused},
		{opPart, up, 400, "The browser (or proxy) sent a request that this server could not understand.", "", api.Refused},
		{opPart, up, 400, "File is too large.", "", api.TooLarge},
		{opPart, up, 413, "", "", api.TooLarge},
		{opComplete, up, 400, "Upload upload_1 was declared with 6 bytes, but the listed parts have 7.", "", api.Refused},
		{opComplete, up, 400, "No such Part in Upload upload_1: part_1", "", api.Refused},
		{opComplete, up, 400, "The md5 does not match.", "", api.Refused},
	} {
		t.Run(fmt.Sprintf("%s %d %s", test.op, test.status, test.message), func(t *testing.T) {
			body := fmt.Sprintf(`{"error":{"message":%q,"type":"x","param":null,"code":%q}}`, test.message, test.code)
			got := refusal(call{op: test.op, uploadID: test.uploadID}, test.status, http.Header{}, []byte(body))
			require.Equal(t, test.want.String(), got.Kind.String())
			require.Equal(t, test.status, got.Status)
			require.Equal(t, test.op, got.Op)
			require.Equal(t, test.uploadID, got.UploadID)
			if test.message != "" {
				require.Contains(t, got.Message, test.message)
			}
		})
	}
}

func TestMessages(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":{"message":"Two\nlines,\ta \u001b[1mbold\u001b[0m one \u2028 and \u202emore"}}`: "Two lines, a [1mbold [0m one and more",
		`{"error":{"message":null}}`:                    `413 Request Entity Too Large: {"error":{"message":null}}`,
		`{"error":"nope"}`:                              `413 Request Entity Too Large: {"error":"nope"}`,
		`{"error":{"message":"M","code":7,"param":{}}}`: "M",
		"":   "413 Request Entity Too Large",
		"{}": "413 Request Entity Too Large: {}",
		"<html>\r\n<head><title>413</title></head>\r\n<body>\xff<center>nginx</center></body></html>": "413 Request Entity Too Large: 413 \uFFFD nginx",
		strings.Repeat("x", 9<<10): "413 Request Entity Too Large: " + strings.Repeat("x", maxExcerpt),
	} {
		got := refusal(call{op: opPart}, http.StatusRequestEntityTooLarge, http.Header{}, []byte(body))
		require.Equal(t, want, got.Message)
		require.Equal(t, api.TooLarge, got.Kind)
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for name, test := range map[string]struct {
		header map[string]string
		want   time.Duration
	}{
		"none":              {nil, 0},
		"seconds":           {map[string]string{"Retry-After": "20"}, 20 * time.Second},
		"fraction":          {map[string]string{"Retry-After": "1.5"}, 1500 * time.Millisecond},
		"zero":              {map[string]string{"Retry-After": "0"}, 0},
		"negative":          {map[string]string{"Retry-After": "-3"}, 0},
		"not a number":      {map[string]string{"Retry-After": "NaN"}, 0},
		"for ever":          {map[string]string{"Retry-After": "1e300"}, 1<<63 - 1},
		"nonsense":          {map[string]string{"Retry-After": "soon"}, 0},
		"milliseconds win":  {map[string]string{"Retry-After-Ms": "250", "Retry-After": "1"}, 250 * time.Millisecond},
		"bad milliseconds":  {map[string]string{"Retry-After-Ms": "x", "Retry-After": "1"}, time.Second},
		"date":              {map[string]string{"Retry-After": at(time.Minute)}, time.Minute},
		"past date":         {map[string]string{"Retry-After": at(-time.Minute)}, 0},
		"the server's date": {map[string]string{"Retry-After": at(time.Hour), "Date": at(59 * time.Minute)}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			for k, v := range test.header {
				header.Set(k, v)
			}
			require.Equal(t, test.want, retryAfter(header, now))
		})
	}
}

func TestCompletedBefore(t *testing.T) {
	for _, test := range []struct {
		op      string
		status  int
		message string
		want    bool
	}{
		{opComplete, 400, "Upload upload_1 is already completed.", true},
		{opComplete, 400, "The upload has been completed.", true},
		{opComplete, 400, "Upload upload_1 is in the terminal state 'completed'.", true},
		{opComplete, 409, "Upload upload_1 is already completed.", true},
		{opComplete, 422, "Upload upload_1 was completed before.", true},
		{opComplete, 400, "Upload upload_1 cannot be completed: it has no parts.", false},
		{opComplete, 400, "The upload is not yet completed.", false},
		{opComplete, 400, "The upload has not been completed.", false},
		{opComplete, 400, "The request couldn't be completed.", false},
		{opComplete, 400, "Upload upload_1 has expired.", false},
		{opComplete, 404, "No completed Upload upload_1.", false},
		{opComplete, 500, "Upload upload_1 is already completed.", false},
		{opPart, 400, "Upload upload_1 is already completed.", false},
	} {
		t.Run(fmt.Sprintf("%s %d %s", test.op, test.status, test.message), func(t *testing.T) {
			body := fmt.Sprintf(`{"error":{"message":%q}}`, test.message)
			got := refusal(call{op: test.op, uploadID: "upload_1"}, test.status, http.Header{}, []byte(body))
			require.Equal(t, test.want, errors.Is(got, api.ErrAlreadyCompleted))
			require.Equal(t, test.want, errors.Is(got, api.ErrOutcomeUnknown))
			if test.want {
				require.Equal(t, api.Refused, got.Kind)
			}
		})
	}
}

func TestRemedies(t *testing.T) {
	for _, test := range []struct {
		op     string
		status int
		body   string
		want   string
	}{
		{opCreate, 501, "", "this server has no Uploads API (POST /uploads): check the base URL (501 Not Implemented)"},
		{opPart, 501, `{"error":{"message":"No."}}`, "this server does not implement this call: check the base URL (No.)"},
		{opPart, 505, "<p>No.</p>", "the server, or a proxy before it, refuses HTTP/1.1: check the base URL and the proxy (505 HTTP Version Not Supported: No.)"},
		{opPart, 500, "", "500 Internal Server Error"},
	} {
		require.Equal(t, test.want, refusal(call{op: test.op}, test.status, http.Header{}, []byte(test.body)).Message)
	}
}

func TestShouldRetry(t *testing.T) {
	for _, test := range []struct {
		op      string
		status  int
		message string
		should  string
		after   string // Retry-After
		want    api.Kind
		pause   time.Duration
	}{
		{opPart, 400, "No.", "true", "", api.Transient, 0},
		{opPart, 400, "No.", "true", "7", api.Transient, 7 * time.Second},
		{opPart, 404, "No.", "true", "", api.Transient, 0},
		{opCreate, 401, "No.", "true", "", api.Transient, 0},
		{opPart, 501, "No.", "true", "", api.Refused, 0},
		{opPart, 302, "No.", "true", "", api.Refused, 0},
		{opComplete, 400, "Upload upload_1 is already completed.", "true", "", api.Refused, 0},
		{opPart, 503, "No.", "true", "", api.Transient, 0},
		{opPart, 503, "No.", "false", "", api.Transient, 5 * time.Minute},
		{opPart, 429, "No.", "false", "7", api.Transient, 5 * time.Minute},
		{opPart, 429, "No.", "false", "600", api.Transient, 10 * time.Minute},
		{opPart, 400, "No.", "false", "", api.Refused, 0},
		{opPart, 404, "No.", "false", "", api.Gone, 0},
		{opPart, 400, "No.", "maybe", "", api.Refused, 0},
	} {
		t.Run(fmt.Sprintf("%s %d %s %s", test.op, test.status, test.should, test.after), func(t *testing.T) {
			header := http.Header{}
			header.Set("X-Should-Retry", test.should)
			header.Set("Retry-After", test.after)
			body := fmt.Sprintf(`{"error":{"message":%q}}`, test.message)
			got := refusal(call{op: test.op, uploadID: "upload_1"}, test.status, header, []byte(body))
			require.Equal(t, test.want.String(), got.Kind.String())
			require.Equal(t, test.pause, got.RetryAfter)
		})
	}
}

func TestServerTime(t *testing.T) {
	const date = "Fri, 02 Jan 2026 03:04:05 GMT"
	got := refusal(call{}, 400, http.Header{"Date": {date}}, nil)
	require.True(t, got.ServerTime.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), got.ServerTime)
	for _, header := range []http.Header{{}, {"Date": {"yesterday"}}} {
		require.Zero(t, refusal(call{}, 400, header, nil).ServerTime)
	}
}

func TestClip(t *testing.T) {
	require.Equal(t, "four", clip("four", 4))
	require.Equal(t, "fou…", clip("fours", 3))
	require.Equal(t, "é…", clip("éé", 3), "no half characters")
}
