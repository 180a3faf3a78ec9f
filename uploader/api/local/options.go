package local

import (
	"errors"
	"log/slog"
	"time"
)

// The API's own limits. The reference says "64 MB", "8 GB" and "512 MB". The official helpers send parts of
// 64·1024·1024 bytes, so a client may rely on the binary units.
const (
	DefaultMaxPartBytes   = 64 << 20
	DefaultMaxUploadBytes = 8 << 30
	DefaultMaxFileBytes   = 512 << 20

	// DefaultUploadTTL is how long an Upload stays open. A part does not prolong it.
	DefaultUploadTTL = time.Hour

	// DefaultStallTimeout is how long a connection may go without a byte while one is due.
	DefaultStallTimeout = 60 * time.Second

	// DefaultMaxConnections is far above what a client opens, and below what a process may have descriptors for.
	DefaultMaxConnections = 256

	// DefaultCollectEvery is how often the janitor looks for garbage.
	DefaultCollectEvery = time.Minute

	// rememberEnded is how long after its expiry an ended Upload is still known, and refused as completed, cancelled
	// or expired. After that it is unknown and uses no memory.
	rememberEnded = time.Hour
)

// Options configures a Server. Only Dir is required; a zero field means its default.
type Options struct {
	// Dir is the directory that everything is stored in. It is created (0700) if it does not exist.
	Dir string

	// Key is the bearer token that every request must carry. Empty: no authentication.
	Key string

	// UploadTTL is how long an Upload stays open after its creation, 1 h by default.
	UploadTTL time.Duration

	// MaxPartBytes, MaxUploadBytes and MaxFileBytes bound a part, an Upload and a File posted whole.
	MaxPartBytes, MaxUploadBytes, MaxFileBytes int64

	// AllowMissingFilename accepts a part whose form field has no filename, as the published curl example
	// (-F data="…") sends it. The service itself answers 400.
	AllowMissingFilename bool

	// RequirePartContentType refuses a part whose form field has no Content-Type, as Azure does.
	RequirePartContentType bool

	// CountUnlistedParts makes parts that complete does not list count in the total. What the service does is
	// unknown, so clients must work either way.
	CountUnlistedParts bool

	// TrustMD5 accepts the MD5 of a complete without reading the content. It is for benchmarks on one machine: hashing
	// in the real service costs the client nothing.
	TrustMD5 bool

	// MaxConnections bounds the connections of servers of NewHTTPServer and Serve, 256 by default. Those of Dial do
	// not count.
	MaxConnections int

	// StallTimeout is how long a client may neither send nor take a byte before it is disconnected, 60 s by default.
	StallTimeout time.Duration

	// CollectEvery is the janitor's period, 1 min by default. Collect does the same at once.
	CollectEvery time.Duration

	// Now is the clock, time.Now by default. It may be called concurrently.
	Now func() time.Time

	// Log gets messages for the operator. Nothing is logged by default.
	Log *slog.Logger

	// Faults fails requests regularly. SetFaults replaces it.
	Faults Faults

	// Intercept fails chosen requests at chosen places. SetIntercept replaces it.
	Intercept InterceptFunc

	// Observe is called after every request, on the request's goroutine.
	Observe func(Event)
}

// withDefaults fills in the zero fields.
func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("built-in API server: name the directory to store in (Options.Dir)")
	}
	for _, field := range []struct {
		value   *int64
		initial int64
	}{
		{&o.MaxPartBytes, DefaultMaxPartBytes},
		{&o.MaxUploadBytes, DefaultMaxUploadBytes},
		{&o.MaxFileBytes, DefaultMaxFileBytes},
		{(*int64)(&o.UploadTTL), int64(DefaultUploadTTL)},
		{(*int64)(&o.StallTimeout), int64(DefaultStallTimeout)},
		{(*int64)(&o.CollectEvery), int64(DefaultCollectEvery)},
	} {
		if *field.value <= 0 {
			*field.value = field.initial
		}
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}
