package local

import (
	"crypto/subtle"
	"net/http"
	"strings"
)

// authorize checks the bearer token of a request.
func (s *Server) authorize(r *http.Request) error {
	if s.opt.Key == "" {
		return nil
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	key = strings.TrimSpace(key)
	if !strings.EqualFold(scheme, "Bearer") || key == "" {
		return refuse(http.StatusUnauthorized, "",
			"You didn't provide an API key. Send it in an Authorization header: Authorization: Bearer YOUR_KEY.")
	}
	if subtle.ConstantTimeCompare([]byte(key), []byte(s.opt.Key)) != 1 {
		e := refuse(http.StatusUnauthorized, "", "Incorrect API key provided: %s.", redact(key))
		e.Code = "invalid_api_key"
		return e
	}
	return nil
}

// redact shows enough of a key to tell two keys apart, and nothing of a short one. The message may be logged.
func redact(key string) string {
	const head, tail = 3, 4
	if len(key) < 4*(head+tail) {
		return "***"
	}
	return strings.ToValidUTF8(key[:head]+"***"+key[len(key)-tail:], "?")
}
