package local

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"slices"
	"strconv"
	"strings"
)

// purposes are those that an upload may have, in the order of the service's own message.
var purposes = []string{"fine-tune", "assistants", "batch", "user_data", "vision", "evals"}

// The bounds of expires_after.seconds: an hour and thirty days.
const (
	minExpiresAfter = 3600
	maxExpiresAfter = 2592000
)

// readJSON reads a request's JSON object. Names are compared exactly, and unknown names are refused. encoding/json alone
// would accept FILENAME for filename and ignore a misspelt parameter.
func (c *call) readJSON(known ...string) (params, error) {
	mediaType, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return nil, badRequest("", "Unsupported content type: '%s'. Send application/json.", clip(c.r.Header.Get("Content-Type")))
	}
	if err := c.body.open(maxJSONBody); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(&c.body)
	if err != nil {
		return nil, err
	}
	return parseParams(b, known)
}

// params are the members of a JSON object.
type params map[string]json.RawMessage

func parseParams(b []byte, known []string) (params, error) {
	var p params
	if err := json.Unmarshal(b, &p); err != nil || p == nil {
		return nil, badRequest("", "The request body is not a JSON object.")
	}
	for name := range p {
		if !slices.Contains(known, name) {
			return nil, unknownParameter(name)
		}
	}
	return p, nil
}

// has reports whether a parameter is present and not null.
func (p params) has(name string) bool {
	raw, ok := p[name]
	return ok && !bytes.Equal(raw, []byte("null"))
}

// into decodes a required parameter.
func (p params) into(name, want string, value any) error {
	if !p.has(name) {
		return missing(name)
	}
	if err := json.Unmarshal(p[name], value); err != nil {
		e := badRequest(name, "Invalid type for '%s': expected %s.", name, want)
		e.Code = "invalid_type"
		return e
	}
	return nil
}

// text returns a required string that is not empty.
func (p params) text(name string) (string, error) {
	var s string
	if err := p.into(name, "a string", &s); err != nil {
		return "", err
	}
	if s == "" {
		return "", badRequest(name, "Invalid '%s': empty string.", name)
	}
	return s, nil
}

// integer returns a required integer.
func (p params) integer(name string) (int64, error) {
	var n int64
	err := p.into(name, "an integer", &n)
	return n, err
}

// expiresAfter returns the seconds of an optional expires_after, 0 for none.
func (p params) expiresAfter() (int64, error) {
	const name = "expires_after"
	if !p.has(name) {
		return 0, nil
	}
	inner, err := parseParams(p[name], []string{"anchor", "seconds"})
	if err != nil {
		return 0, badRequest(name, "Invalid '%s': expected an object with anchor and seconds.", name)
	}
	anchor, err := inner.text("anchor")
	if err != nil {
		return 0, badRequest(name+".anchor", "Invalid '%s.anchor': it must be 'created_at'.", name)
	}
	seconds, err := inner.integer("seconds")
	if err != nil {
		return 0, badRequest(name+".seconds", "Invalid '%s.seconds': expected an integer.", name)
	}
	return checkExpiresAfter(anchor, seconds)
}

func checkExpiresAfter(anchor string, seconds int64) (int64, error) {
	if anchor != "created_at" {
		return 0, badRequest("expires_after.anchor", "Invalid 'expires_after.anchor': it must be 'created_at'.")
	}
	if seconds < minExpiresAfter || seconds > maxExpiresAfter {
		return 0, badRequest("expires_after.seconds", "Invalid 'expires_after.seconds': it must be from %d to %d.",
			minExpiresAfter, maxExpiresAfter)
	}
	return seconds, nil
}

func checkPurpose(purpose string) error {
	if !slices.Contains(purposes, purpose) {
		return wrongPurpose(purpose)
	}
	return nil
}

// checkMD5 returns a hexadecimal MD5 in lower case.
func checkMD5(sum string) (string, error) {
	sum = strings.ToLower(sum)
	if len(sum) != 32 || strings.Trim(sum, "0123456789abcdef") != "" {
		return "", badRequest("md5", "Invalid 'md5': expected 32 hexadecimal digits.")
	}
	return sum, nil
}

// decimal parses a number that was sent as text.
func decimal(param, s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, badRequest(param, "Invalid '%s': expected an integer.", param)
	}
	return n, nil
}
