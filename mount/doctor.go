package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
)

// Verdict is how a check of [Examine] came out.
type Verdict string

const (
	Fine   Verdict = "ok"
	Note   Verdict = "note" // mounts work; the message says what is different
	Broken Verdict = "fail" // mounts, or uploads, do not work
)

// Finding is the result of one check.
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Message string  `json:"message"` // what was found, and what to do unless it is fine
}

const (
	doctorTimeout = 15 * time.Second // of each question to the endpoint
	clockDrift    = time.Minute      // the API's clock may differ so much from ours
	littleSpace   = 1 << 30          // bytes
)

// Examine checks what a mount with this configuration needs. deep also creates an Upload
// and cancels it.
func Examine(ctx context.Context, c Config, deep bool) []Finding {
	list := examineMachine()
	list = append(list, c.examineStateDir())
	if c.Embedded {
		return append(list, Finding{"endpoint", Fine, "embedded: the mount serves the API itself"})
	}
	endpoint, answer := c.examineEndpoint(ctx)
	list = append(list, endpoint...)
	return append(list, c.examineKey(ctx, answer, deep)...)
}

// examineStateDir looks at the directory without changing anything.
func (c *Config) examineStateDir() Finding {
	const check = "state directory"
	dir, err := c.StateDir, error(nil)
	if dir == "" {
		dir, err = DefaultStateDir("/")
		dir = filepath.Dir(dir)
		if c.MountPoint != "" {
			var point string
			if point, err = resolveAbsent(c.MountPoint); err == nil {
				dir, err = DefaultStateDir(point)
			}
		}
	}
	if err == nil {
		dir, err = resolveAbsent(dir)
	}
	if err != nil {
		return Finding{check, Broken, err.Error()}
	}
	exists := dir
	var st syscall.Statfs_t
	for err = syscall.Statfs(exists, &st); errors.Is(err, syscall.ENOENT) && exists != "/"; err = syscall.Statfs(exists, &st) {
		exists = filepath.Dir(exists)
	}
	if err == nil {
		err = writable(exists)
	}
	if err != nil {
		return Finding{check, Broken, fmt.Sprintf("%s: %v: give another one with --state-dir", Printable(dir), err)}
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	message := fmt.Sprintf("%s, %s free", Printable(dir), humanize.IBytes(uint64(free)))
	if free < littleSpace {
		return Finding{check, Note, message + ": the local copies of all files lie there, so make room or give another one with --state-dir"}
	}
	return Finding{check, Fine, message}
}

// answered is what is known of an answer of the endpoint. at is when it came, by our clock.
type answered struct {
	now time.Time // by the endpoint's clock; zero if not known
	at  time.Time
}

// examineEndpoint asks the endpoint for its base URL, without a key.
func (c *Config) examineEndpoint(ctx context.Context) ([]Finding, answered) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	base := NewEndpoint(c.BaseURL, "", "").BaseURL
	if _, err := openai.New(openai.Config{BaseURL: c.BaseURL}); err != nil {
		return []Finding{{"endpoint", Broken, err.Error() + ": correct OPENAI_BASE_URL"}}, answered{}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, base, nil)
	if err != nil {
		return []Finding{{"endpoint", Broken, err.Error()}}, answered{}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	began := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return []Finding{{"endpoint", Broken, fmt.Sprintf("%s does not answer (%s): check the network, HTTPS_PROXY and OPENAI_BASE_URL", base, api.OneLine(err))}}, answered{}
	}
	resp.Body.Close()
	list := []Finding{{"endpoint", Fine, fmt.Sprintf("%s answers in %s", base, time.Since(began).Round(time.Millisecond))}}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		cert := resp.TLS.PeerCertificates[0]
		list = append(list, Finding{"TLS", Fine, fmt.Sprintf("the certificate is valid until %s", cert.NotAfter.Format(time.DateOnly))})
	} else {
		list = append(list, Finding{"TLS", Note, "none: plain http, on which the key and the files can be read"})
	}
	var a answered
	if a.now, err = http.ParseTime(resp.Header.Get("Date")); err == nil {
		a.at = time.Now()
	}
	return list, a
}

// examineKey looks at the clock, and tries the key.
func (c *Config) examineKey(ctx context.Context, answer answered, deep bool) (list []Finding) {
	clock := Finding{"clock", Note, "the endpoint does not say its time"}
	if !answer.now.IsZero() {
		// The Date has whole seconds.
		if drift := answer.at.Sub(answer.now).Round(time.Second); drift.Abs() <= clockDrift {
			clock = Finding{"clock", Fine, fmt.Sprintf("within %s of the API's", clockDrift)}
		} else {
			clock.Message = fmt.Sprintf("%s off the API's: uploads work, but times in the log do not match; see timedatectl", drift)
		}
	}
	list = append(list, clock)
	source, err := c.key()
	var backend *openai.Backend
	if err == nil {
		config := c.apiConfig()
		config.Key = source
		backend, err = openai.New(config)
	}
	if err != nil {
		return append(list, Finding{"key", Broken, err.Error()})
	}
	defer backend.Close()
	check := &keyCheck{checker: backend, log: slog.New(slog.DiscardHandler)}
	err = check.check(ctx, doctorTimeout)
	switch {
	case err == nil:
		list = append(list, Finding{"key", Fine, "the API accepts it"})
	case api.KindOf(err) == api.Denied && !refusesKey(err):
		list = append(list, Finding{"key", Note, keyNote(err)})
	default:
		list = append(list, Finding{"key", Broken, keyNote(err)})
	}
	if deep {
		list = append(list, c.examineUpload(ctx, backend))
	}
	return list
}

// examineUpload creates an Upload and cancels it.
func (c *Config) examineUpload(ctx context.Context, b api.Backend) Finding {
	ctx, cancel := context.WithTimeout(ctx, 2*doctorTimeout)
	defer cancel()
	up, err := b.Create(ctx, api.Spec{Filename: "uploadfs-doctor.jsonl", Purpose: c.Purpose, MimeType: "text/jsonl", Bytes: 1})
	if err != nil {
		return Finding{"upload", Broken, fmt.Sprintf("the API refuses an Upload with purpose %s: %s", c.Purpose, strings.TrimSuffix(apiWords(err), "."))}
	}
	if err := b.Cancel(ctx, up.ID); err != nil {
		return Finding{"upload", Note, fmt.Sprintf("%s was created and could not be cancelled (%s): it expires by itself", up.ID, apiWords(err))}
	}
	return Finding{"upload", Fine, fmt.Sprintf("the API takes Uploads with purpose %s", c.Purpose)}
}
