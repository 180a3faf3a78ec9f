package openai

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"uploadfs/uploader/api"

	"github.com/openai/openai-go/v3"
)

const (
	maxMessage = 400     // bytes of an error's message
	maxExcerpt = 8 << 10 // bytes examined of an answer that is not the API's
)

// The API has no error codes for these refusals. Only their text tells them apart.
var (
	saysGone = regexp.MustCompile(`(?i)\bupload(_\w+)?\b.{0,80}\b(expired|not found|not exist|no longer exists?|cancell?ed)\b` +
		`|\b(no such|unknown|expired|cancell?ed) upload\b`)
	saysTooLarge  = regexp.MustCompile(`(?i)\btoo (large|big)\b|\bmax(imum)?\b.{0,30}\bsize\b|\bsize limit\b`)
	saysEnded     = regexp.MustCompile(`(?i)\b(expired|cancell?ed)\b`)
	saysCompleted = regexp.MustCompile(`(?i)\bcompleted\b`)
	// saysIncomplete is removed before saysCompleted is tried.
	saysIncomplete = regexp.MustCompile(`(?i)(\b(be|not|never|until|unless|before)|n't)\s+((it|yet|be|been|is|was|get)\s+)*completed\b`)
)

// alreadyCompleted reports whether the refusal of a Complete says that the Upload was
// completed before.
func alreadyCompleted(status int, message string) bool {
	return (status == http.StatusBadRequest || status == http.StatusConflict || status == http.StatusUnprocessableEntity) &&
		saysCompleted.MatchString(saysIncomplete.ReplaceAllString(message, ""))
}

// refusal returns the error for an answer that is not a success. Its message may be
// long and may contain the key.
func refusal(c call, status int, header http.Header, body []byte) *api.Error {
	answer := parseError(body)
	e := &api.Error{
		Op:         c.op,
		UploadID:   c.uploadID,
		Kind:       kindOf(c, status, answer),
		Status:     status,
		RetryAfter: retryAfter(header, time.Now()),
		ServerTime: serverTime(header),
		Message:    oneLine(answer.Message),
	}
	if e.Message == "" || status < 400 {
		e.Message = statusText(status)
		if text := excerpt(body); text != "" {
			e.Message += ": " + text
		}
	}
	if hint := remedy(c, status, header.Get("Location")); hint != "" {
		e.Message = hint + " (" + e.Message + ")"
	}
	if c.op == opComplete && e.Kind != api.Gone && alreadyCompleted(status, answer.Message) {
		e.Kind, e.Err = api.Refused, api.ErrAlreadyCompleted
		return e
	}
	switch should := header.Get("X-Should-Retry"); {
	case should == "true" && status >= 400 && status < 500:
		e.Kind = api.Transient
	case should == "false" && e.Kind == api.Transient:
		e.RetryAfter = max(e.RetryAfter, discouragedPause)
	}
	return e
}

// discouragedPause is the least time before a retry that the server advises against
// (X-Should-Retry: false, as the official SDKs read it).
const discouragedPause = 5 * time.Minute

// remedy says what to change where no retry helps; "" where the answer speaks for
// itself. location is where a redirect leads.
func remedy(c call, status int, location string) string {
	switch {
	case status < 400 && location != "":
		return "the server redirects to " + showLocation(location) + ": set the base URL to where the API is"
	case status < 400:
		return "the answer is not the API's: check the base URL"
	case status == http.StatusNotImplemented && c.op == opCreate:
		return "this server has no Uploads API (POST /uploads): check the base URL"
	case status == http.StatusNotImplemented:
		return "this server does not implement this call: check the base URL"
	case status == http.StatusHTTPVersionNotSupported:
		return "the server, or a proxy before it, refuses HTTP/1.1: check the base URL and the proxy"
	}
	return ""
}

// showLocation returns a Location for people, without a password and without a query,
// which may carry a signature.
func showLocation(location string) string {
	u, err := url.Parse(location)
	if err != nil || strings.Contains(u.Opaque, "@") {
		return "an address that cannot be parsed"
	}
	u.RawQuery, u.Fragment = "", ""
	return oneLine(u.Redacted())
}

// parseError reads {"error": {…}}. It returns a zero Error for anything else.
func parseError(body []byte) openai.Error {
	var envelope struct {
		Error json.RawMessage `json:"error"`
	}
	var answer openai.Error
	if json.Unmarshal(body, &envelope) == nil && len(envelope.Error) > 0 && envelope.Error[0] == '{' {
		_ = answer.UnmarshalJSON(envelope.Error) // leaves what it cannot read empty
	}
	return answer
}

// kindOf is the table of refusals.
func kindOf(c call, status int, answer openai.Error) api.Kind {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return api.Denied
	case status == http.StatusTooManyRequests:
		if answer.Code == "insufficient_quota" || answer.Type == "insufficient_quota" {
			return api.Quota
		}
		return api.Transient
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported, status < 400:
		return api.Refused
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status >= 500:
		return api.Transient
	case status == http.StatusRequestEntityTooLarge:
		return api.TooLarge
	case c.uploadID != "" && (status == http.StatusNotFound || saysGone.MatchString(answer.Message)):
		return api.Gone
	case saysTooLarge.MatchString(answer.Message):
		return api.TooLarge
	}
	return api.Refused
}

// retryAfter returns how long a server asks the client to wait. It reads the
// milliseconds that the official SDKs know, else seconds or a date as in RFC 9110,
// section 10.2.3. A date counts from the server's own Date, where that is sent.
func retryAfter(header http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(header.Get("Retry-After-Ms"), 64); err == nil {
		return duration(ms, time.Millisecond)
	}
	value := header.Get("Retry-After")
	if s, err := strconv.ParseFloat(value, 64); err == nil {
		return duration(s, time.Second)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date := serverTime(header); !date.IsZero() {
		now = date
	}
	return max(0, at.Sub(now))
}

// serverTime returns the Date of an answer, or the zero time.
func serverTime(header http.Header) time.Time {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return date
}

// duration returns n units, bounded by 0 and the longest Duration.
func duration(n float64, unit time.Duration) time.Duration {
	d := n * float64(unit)
	switch {
	case math.IsNaN(d) || d <= 0:
		return 0
	case d >= math.MaxInt64:
		return math.MaxInt64
	}
	return time.Duration(d)
}

// statusText returns a text like "503 Service Unavailable".
func statusText(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

var markup = regexp.MustCompile(`(?s)<(style|script)\b.*?</(style|script)>|<[^>]*>`)

// excerpt returns the first words of an answer that is not the API's, such as a
// proxy's error page.
func excerpt(body []byte) string {
	return oneLine(markup.ReplaceAllString(string(body[:min(len(body), maxExcerpt)]), " "))
}

// oneLine makes s safe for logs and terminals. It removes control characters, line
// ends and invalid UTF-8, and leaves single spaces.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Cf) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.Join(strings.Fields(s), " ")
}

// clip cuts s to at most n bytes, between two characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
