package mount

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"uploadfs/uploader/api/openai"
)

// Endpoint is where uploads go: what a state directory is bound to.
type Endpoint struct {
	BaseURL               string // "" for the embedded server, whose address changes with each mount
	Organization, Project string
}

// String is the form that is kept in the state directory and shown to people.
func (e Endpoint) String() string {
	if e.BaseURL == "" {
		return "embedded"
	}
	s := e.BaseURL
	if e.Organization != "" {
		s += " organization " + Printable(e.Organization)
	}
	if e.Project != "" {
		s += " project " + Printable(e.Project)
	}
	return s
}

// endpoint says where this configuration uploads to.
func (c *Config) endpoint() Endpoint {
	if c.Embedded {
		return Endpoint{}
	}
	return NewEndpoint(c.BaseURL, c.Organization, c.Project)
}

// NewEndpoint is the endpoint behind a base URL, "" for the official one.
// Spellings of one URL are one endpoint. The client of the API refuses a URL that is
// none.
func NewEndpoint(base, organization, project string) Endpoint {
	if base == "" {
		base = openai.DefaultBaseURL
	}
	if u, err := url.Parse(base); err == nil {
		u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
		u.User = nil
		base = u.String()
	}
	return Endpoint{BaseURL: strings.TrimRight(base, "/"), Organization: organization, Project: project}
}

// maxKeyFile is far above any key, and below what a wrong path could cost.
const maxKeyFile = 64 << 10

// key is the source of the API key: the file as it is now, or what the
// environment said.
func (c *Config) key() (openai.KeySource, error) {
	if c.APIKeyFile == "" {
		if c.APIKey == "" {
			return nil, errors.New("no API key: set OPENAI_API_KEY (or give --api-key-file), or use --embedded for the built-in API server")
		}
		return openai.StaticKey(string(c.APIKey)), nil
	}
	return KeyFile(c.APIKeyFile)
}

// KeyFile reads the key from a file at each call of the source. The error says what
// is wrong with the file now.
func KeyFile(name string) (openai.KeySource, error) {
	read := func() (string, error) {
		fi, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		if fi.Size() > maxKeyFile {
			return "", fmt.Errorf("%s is no key file: it has %d bytes", name, fi.Size())
		}
		b, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(b)) == "" {
			err = fmt.Errorf("%s is empty: write the API key into it", name)
		}
		return string(b), err
	}
	if _, err := read(); err != nil {
		return nil, fmt.Errorf("API key file: %w", err)
	}
	return read, nil
}
