package local

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// crossOrigin refuses requests that a browser sends for a page of another origin.
var crossOrigin = http.NewCrossOriginProtection()

// checkBrowser refuses requests that a page in a browser on this machine makes without
// its user's will. A server without a key on loopback is open to every program of the
// machine, but not to every page that it shows. The Host decides against names that
// another machine's DNS resolves to loopback.
func checkBrowser(r *http.Request) error {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if addr == nil || !addr.IP.IsLoopback() {
		return nil
	}
	if err := crossOrigin.Check(r); err != nil {
		return refuse(http.StatusForbidden, "", "A page of another origin may not use this server: %v.", err)
	}
	if !isLoopbackHost(r.Host) {
		return refuse(http.StatusForbidden, "", "Host '%s' is not a loopback name: use http://%s/v1, or a server with a key.",
			clip(r.Host), addr)
	}
	return nil
}

// isLoopbackHost reports whether a Host header names loopback: localhost and what is
// below it (RFC 6761, section 6.3), or a loopback address.
func isLoopbackHost(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	if ip := net.ParseIP(name); ip != nil {
		return ip.IsLoopback()
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// authorize checks the bearer token of a request, or where none is required, its origin.
func (s *Server) authorize(r *http.Request) error {
	if s.opt.Key == "" {
		return checkBrowser(r)
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
