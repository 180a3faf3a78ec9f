package openai

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// What a zero field of [Config] means.
const (
	DefaultBaseURL     = "https://api.openai.com/v1"
	DefaultSlots       = 8
	DefaultStall       = time.Minute
	DefaultAnswerStall = 5 * time.Minute
	DefaultSlowestRate = 16 << 10 // bytes per second
)

// Config says where the API is and how to talk to it. This package does not read the
// environment; its caller does, once.
type Config struct {
	// BaseURL ends in /v1, where the service has versions. "" means DefaultBaseURL.
	BaseURL string

	// Organization and Project are sent as headers unless empty.
	Organization, Project string

	// Key is called by New and again after a 401. nil means no key.
	Key KeySource

	// Header is added to every request (OPENAI_CUSTOM_HEADERS).
	Header http.Header

	// UserAgent, unless empty, replaces the User-Agent of the SDK.
	UserAgent string

	// Slots is the number of large parts sent at once. It is also the number of
	// connections for them; further parts wait for one of them. Small calls have
	// [api.SmallCalls] connections of their own.
	Slots int

	// Stall is how long a call may go without progress before it counts as a
	// broken connection. Progress is a byte of the request that the TCP peer has
	// acknowledged, or a byte of the answer. A call that progresses may take any
	// time.
	Stall time.Duration

	// AnswerStall is how long the answer may take after the peer has acknowledged
	// the whole request. For a part it is at least twice the time that the part
	// takes at SlowestRate bytes per second: the peer may be a proxy that passes
	// it on more slowly. It is doubled at each retry after such a timeout.
	AnswerStall time.Duration
	SlowestRate int64

	// Limit bounds what all connections send, unless nil.
	Limit *Limit

	// Dial opens the TCP connections, unless nil. It may be called concurrently.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// InsecureHTTP allows the key to be sent over plain http to another
	// machine.
	InsecureHTTP bool

	// TLS replaces the default client configuration (the system's roots, and
	// SSL_CERT_FILE), for a service with its own roots.
	TLS *tls.Config
}

// withDefaults fills the zero fields.
func (c Config) withDefaults() Config {
	if c.BaseURL == "" {
		c.BaseURL = DefaultBaseURL
	}
	if c.Slots <= 0 {
		c.Slots = DefaultSlots
	}
	if c.Stall <= 0 {
		c.Stall = DefaultStall
	}
	if c.AnswerStall <= 0 {
		c.AnswerStall = DefaultAnswerStall
	}
	if c.SlowestRate <= 0 {
		c.SlowestRate = DefaultSlowestRate
	}
	return c
}

// parseBaseURL checks a base URL. It refuses a query and a fragment, because the
// paths of the calls replace them. It refuses credentials, because URLs are logged.
func parseBaseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch shown := showBaseURL(s); {
	case err != nil:
		var detail *url.Error // its own text would repeat the URL
		if errors.As(err, &detail) {
			err = detail.Err
		}
		err = fmt.Errorf("base URL %s: %w", shown, err)
	case u.User != nil:
		err = errCredentials
	case u.Scheme != "https" && u.Scheme != "http":
		err = fmt.Errorf("base URL %s must begin with https:// or http://, as in %s", shown, DefaultBaseURL)
	case u.Hostname() == "":
		err = fmt.Errorf("base URL %s names no host, as %s does", shown, DefaultBaseURL)
	case u.RawQuery != "" || u.Fragment != "":
		err = fmt.Errorf("base URL %s must end with the path, as %s does", shown, DefaultBaseURL)
	}
	switch {
	case err == nil:
		return u, nil
	case strings.Contains(s, "@"):
		return nil, errCredentials // any part of what is wrong may be a part of a password
	default:
		return nil, err
	}
}

var errCredentials = errors.New("the base URL must not carry a user name or password: use the API key")

// showBaseURL returns a base URL for people. It leaves out a query and a fragment, which
// may carry a key.
func showBaseURL(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i] + "…"
	}
	return strconv.Quote(s)
}

// exposed reports whether requests to u can be read on a network: plain http to
// another machine.
func exposed(u *url.URL) bool {
	if u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip == nil || !ip.IsLoopback()
}
