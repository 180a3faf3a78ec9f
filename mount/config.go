package mount

import (
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"uploadfs/fusefs"
	"uploadfs/mount/web"
	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

// Config is the configuration of a mount. [DefaultConfig] has the values of a command
// line without flags.
type Config struct {
	MountPoint string // an existing, empty directory
	StateDir   string // "" stands for the mount point's own, see [DefaultStateDir]

	Embedded     bool        // serve the API from this process, storing under the state directory
	APIKey       Secret      // the key, unless APIKeyFile is given
	APIKeyFile   string      // a file that holds the key; read again when the API refuses the key
	BaseURL      string      // of the API, "" for the official one
	Organization string      // sent as OpenAI-Organization
	Project      string      // sent as OpenAI-Project
	Header       http.Header // further headers of every call, as OPENAI_CUSTOM_HEADERS gives them
	InsecureHTTP bool        // send the key over plain http to other hosts than loopback
	NoCheck      bool        // do not try the key before the mount is ready

	Purpose  string              // of Files whose directory and file say nothing else
	PartSize int64               // bytes, 0 lets the uploader choose
	Parallel int                 // parts in flight over the whole mount
	Limit    int64               // bytes per second that may be sent; 0 is no limit
	Checksum bool                // have the API compare the MD5 of each File
	Names    uploader.NamePolicy // which names wait, and which are never sent

	CloseBackground bool          // close returns at once instead of when the File exists
	Settle          time.Duration // with CloseBackground, a file is sent when it has been closed and quiet for so long
	UnseenWriters   string        // one of [UnseenModes]: what a close by a program means that cannot be observed
	CloseTimeout    time.Duration // how long close waits without one acknowledged byte; 0 is for ever
	DrainTimeout    time.Duration // how long the end of the mount waits for uploads
	WritePath       string        // one of [WritePaths]

	// Programs that run when a file is completed, and when it has failed or was
	// interrupted; "" for none.
	OnComplete, OnFailure string

	HTTP string // where the page and the metrics are served, as web.ParseListen gives it; "" for nowhere

	Options []string // of the mount, as after -o: see [MountOptions]

	Foreground bool       // stay, and log to standard error
	LogFormat  string     // one of [LogFormats]
	LogLevel   slog.Level // what is less is not logged
}

// DefaultConfig holds the default of every flag; the caller sets MountPoint.
var DefaultConfig = Config{
	Purpose:       uploader.DefaultPurpose,
	PartSize:      uploader.DefaultPartSize,
	Parallel:      uploader.DefaultParallel,
	Checksum:      true,
	Names:         uploader.NamePolicy{HoldFor: uploader.DefaultHoldFor},
	Settle:        uploader.DefaultSettle,
	CloseTimeout:  uploader.DefaultCloseTimeout,
	DrainTimeout:  30 * time.Second,
	UnseenWriters: string(fusefs.UnseenBackground),
	WritePath:     "auto",
	LogFormat:     "text",
}

// The values that flags with a choice take.
var (
	WritePaths  = []string{"auto", "passthrough", "writeback"}
	LogFormats  = []string{"text", "json"}
	UnseenModes = []string{string(fusefs.UnseenBackground), string(fusefs.UnseenCommit)}
	CloseModes  = []string{"wait", "background"}
	Checksums   = []string{"md5", "none"}
	LogLevels   = []string{"debug", "info", "warn", "error"}
)

// MountOptions are the options that -o takes. The kernel would ignore the rest of
// what mount(8) knows, or refuse it without a useful message.
var MountOptions = []string{"allow_other", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "ro", "rw"}

// MaxParallel bounds the parts in flight of a mount or a put. Each part has a
// connection of its own, and more connections make no line faster.
const MaxParallel = 256

// Secret is a string that prints as nothing. Convert it to string to use it.
type Secret string

func (Secret) String() string       { return "[secret]" }
func (Secret) GoString() string     { return "[secret]" }
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// ParsePartSize reads a part size: 8MiB to 64MiB in any unit, or "auto" (0).
func ParsePartSize(s string) (int64, error) {
	if s == "auto" {
		return 0, nil
	}
	n, err := humanize.ParseBytes(s)
	if err != nil || n < api.MinPart || n > api.MaxPart {
		return 0, usagef("give a size from 8MiB to 64MiB, or auto")
	}
	return int64(n), nil
}

// leastLimit is below what any line gives, and still lets all connections move.
const leastLimit = 16 << 10

// ParseLimit reads a rate in bytes per second, as in 2MiB, or "off" (0).
func ParseLimit(s string) (int64, error) {
	if s == "off" || s == "0" {
		return 0, nil
	}
	n, err := humanize.ParseBytes(strings.TrimSuffix(s, "/s"))
	if err != nil || n < leastLimit || n > math.MaxInt64 {
		return 0, usagef("give bytes per second, at least 16KiB, or off")
	}
	return int64(n), nil
}

// ParseParallel reads a number of parts in flight.
func ParseParallel(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxParallel {
		return 0, usagef("give 1 to %d parts in flight", MaxParallel)
	}
	return n, nil
}

// ParseChoice checks that s is one of choices, of which the error names all.
func ParseChoice(s string, choices []string) (string, error) {
	if !slices.Contains(choices, s) {
		return "", usagef("use %s", strings.Join(choices, " or "))
	}
	return s, nil
}

// ParseListen reads the address of --http: HOST:PORT, or PORT for 127.0.0.1.
func ParseListen(s string) (string, error) {
	addr, err := web.ParseListen(s)
	if err != nil {
		return "", &UsageError{err}
	}
	return addr, nil
}

// ParseLogLevel reads debug, info, warn or error.
func ParseLogLevel(s string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return 0, usagef("use debug, info, warn or error")
	}
	return l, nil
}

// check finds the mistakes that can be found without looking at the machine.
func (c *Config) check() error {
	if c.MountPoint == "" {
		return usagef("name the directory to mount on")
	}
	if c.Embedded && c.APIKeyFile != "" {
		return usagef("--embedded makes its own key: give either it or --api-key-file")
	}
	if err := uploader.ValidatePurpose(c.Purpose); err != nil {
		return &UsageError{err}
	}
	if c.PartSize != 0 && (c.PartSize < api.MinPart || c.PartSize > api.MaxPart) {
		return usagef("part size %s: give 8MiB to 64MiB, or auto", humanize.IBytes(uint64(max(c.PartSize, 0))))
	}
	if c.Parallel < 1 || c.Parallel > MaxParallel {
		return usagef("parallel %d: give 1 to %d parts in flight", c.Parallel, MaxParallel)
	}
	if c.CloseTimeout < 0 || c.DrainTimeout < 0 || c.Settle < 0 {
		return usagef("a time cannot be negative: give --close-timeout, --drain-timeout and --settle like 30s or 5m")
	}
	if c.Names.HoldFor <= 0 {
		return usagef("hold for %s: give a time above 0, or --no-hold to hold nothing", c.Names.HoldFor)
	}
	if err := c.Names.Validate(); err != nil {
		return &UsageError{err}
	}
	if _, err := ParseChoice(c.WritePath, WritePaths); err != nil {
		return usagef("write path %q: %w", c.WritePath, err)
	}
	if _, err := ParseChoice(c.UnseenWriters, UnseenModes); err != nil {
		return usagef("unseen writers %q: %w", c.UnseenWriters, err)
	}
	if _, err := ParseChoice(c.LogFormat, LogFormats); err != nil {
		return usagef("log format %q: %w", c.LogFormat, err)
	}
	for _, o := range c.Options {
		if !slices.Contains(MountOptions, o) {
			return usagef("unknown mount option %q: use one of %s", o, strings.Join(MountOptions, ", "))
		}
	}
	return nil
}
