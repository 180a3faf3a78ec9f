package mount

import (
	"net/url"
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
