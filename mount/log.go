package mount

import (
	"io"
	"log/slog"
)

// newLogger writes one line per event. Both of slog's handlers escape control
// characters in values, so a file's name cannot forge a line.
func newLogger(w io.Writer, c *Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
