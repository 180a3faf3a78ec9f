package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParsePartSize(t *testing.T) {
	for in, want := range map[string]int64{"8MiB": 8 << 20, "64MiB": 64 << 20, "8388608": 8 << 20, "10 MB": 10_000_000, "64mib": 64 << 20, "auto": 0} {
		n, err := ParsePartSize(in)
		require.NoError(t, err, in)
		require.Equal(t, want, n, in)
	}
	for _, in := range []string{"", "7MiB", "8388607", "65MiB", "1e30", "-8MiB", "many", "AUTO"} {
		_, err := ParsePartSize(in)
		require.ErrorContains(t, err, "8MiB to 64MiB, or auto", in)
		require.Equal(t, ExitUsage, ExitCode(err))
	}
}

func TestDefaultsPassTheirOwnCheck(t *testing.T) {
	c := DefaultConfig
	c.MountPoint = "/mnt"
	require.NoError(t, c.check())
}

func TestCheckFindsMistakes(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		"name the directory":    func(c *Config) { c.MountPoint = "" },
		"use one of assistants": func(c *Config) { c.Purpose = "fun" },
		"part size 1.0 MiB":     func(c *Config) { c.PartSize = 1 << 20 },
		"parts in flight":       func(c *Config) { c.Parallel = 0 },
		"cannot be negative":    func(c *Config) { c.DrainTimeout = -1 },
		"--settle":              func(c *Config) { c.Settle = -1 },
		"--no-hold":             func(c *Config) { c.Names.HoldFor = 0 },
		"bad pattern":           func(c *Config) { c.Names.Exclude = []string{"["} },
		`unseen writers "both"`: func(c *Config) { c.UnseenWriters = "both" },
		`write path "fast"`:     func(c *Config) { c.WritePath = "fast" },
		`log format "xml"`:      func(c *Config) { c.LogFormat = "xml" },
		`mount option "fsname`:  func(c *Config) { c.Options = []string{"ro", "fsname=x"} },
	} {
		c := DefaultConfig
		c.MountPoint = "/mnt"
		spoil(&c)
		err := c.check()
		require.ErrorContains(t, err, want)
		require.Equal(t, ExitUsage, ExitCode(err), want)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestExitCode(t *testing.T) {
	require.Equal(t, ExitDone, ExitCode(nil))
	require.Equal(t, ExitFailed, ExitCode(errors.New("x")))
	require.Equal(t, ExitFailed, ExitCode(&LeftError{Outcome{Left: []string{"a"}}}))
	require.Equal(t, ExitUsage, ExitCode(fmt.Errorf("mount: %w", usagef("x"))))
	require.Equal(t, ExitUsage, ExitCode(&reported{"x", ExitUsage}))
}

func TestEndpoint(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{Embedded: true, BaseURL: "https://a/v1", Project: "p"}, "embedded"},
		{Config{}, "https://api.openai.com/v1"},
		{Config{BaseURL: "HTTPS://API.openai.com/v1/"}, "https://api.openai.com/v1"},
		{Config{BaseURL: "http://127.0.0.1:80/V1", Organization: "o"}, "http://127.0.0.1:80/V1 organization o"},
		{Config{BaseURL: "https://me:secret@a/v1", Project: "p\nq"}, `https://a/v1 project p\nq`},
	} {
		require.Equal(t, c.want, c.config.endpoint().String())
	}
}

func TestKey(t *testing.T) {
	c := Config{}
	_, err := c.key()
	require.ErrorContains(t, err, "OPENAI_API_KEY")
	require.ErrorContains(t, err, "--embedded")

	c.APIKey = "sk-1"
	read, err := c.key()
	require.NoError(t, err)
	key, err := read()
	require.NoError(t, err)
	require.Equal(t, "sk-1", key)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s", c, c, c, c.APIKey), "sk-1")

	c.APIKeyFile = filepath.Join(t.TempDir(), "key")
	_, err = c.key()
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(c.APIKeyFile, []byte(" \n"), 0o600))
	_, err = c.key()
	require.ErrorContains(t, err, "is empty")
	require.NoError(t, os.WriteFile(c.APIKeyFile, []byte("sk-2\n"), 0o600))
	read, err = c.key()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(c.APIKeyFile, []byte("sk-3\n"), 0o600))
	key, err = read()
	require.NoError(t, err)
	require.Equal(t, "sk-3\n", key, "each call reads the file")

	c.APIKeyFile = "/proc/self/exe"
	_, err = c.key()
	require.ErrorContains(t, err, "no key file")
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü 文.txt": "plain ü 文.txt", "a\nb": `a\nb`, "\x1b[2J": `\x1b[2J`, "a\xffb": `a\xffb`, `q"q` + "\t": `q"q\t`, "\u009b": `\u009b`,
	} {
		require.Equal(t, want, Printable(in))
	}
}
