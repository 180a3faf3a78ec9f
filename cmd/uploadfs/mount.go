package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"uploadfs/mount"
)

func mountCommand() *cobra.Command {
	c := mount.DefaultConfig
	cmd := &cobra.Command{
		Use:   "mount [flags] MOUNTPOINT",
		Short: "mount, and return when the mount is ready",
		Long: `Mounts on MOUNTPOINT, an existing, empty directory, and returns when the mount
is ready. Every file written below it becomes a File at the API. close waits until
the File exists, and fails if it never will.

The endpoint and the key are read as the official SDKs read them: OPENAI_API_KEY,
OPENAI_BASE_URL, OPENAI_ORG_ID, OPENAI_PROJECT_ID. --embedded mounts without
a network; the address and key of its server are in embedded.json in the state
directory.`,
		Example: `  uploadfs mount --embedded ~/up
  OPENAI_API_KEY=... uploadfs mount --purpose fine-tune ~/up`,
		Args: takes(1, 1, "name the one directory to mount on"),
		RunE: func(_ *cobra.Command, args []string) error {
			c.MountPoint = args[0]
			environment(&c)
			return mount.Mount(c)
		},
	}
	mountFlags(cmd.Flags(), &c)
	return cmd
}

func mountFlags(f *pflag.FlagSet, c *mount.Config) {
	f.SortFlags = false
	f.BoolVar(&c.Embedded, "embedded", c.Embedded, "use the built-in API server, storing under the state directory")
	f.StringVar(&c.StateDir, "state-dir", c.StateDir,
		"`DIR` with the local copies and the journal (default $XDG_STATE_HOME/uploadfs/NAME, or /var/lib/uploadfs/NAME as root)")
	f.StringVar(&c.Purpose, "purpose", c.Purpose, "`PURPOSE` of Files, where no attribute says otherwise")
	parsed(f, "part-size", "64MiB", "`SIZE` of a part, 8MiB to 64MiB, or auto", []string{"auto"}, func(s string) (err error) {
		c.PartSize, err = mount.ParsePartSize(s)
		return err
	})
	f.IntVar(&c.Parallel, "parallel", c.Parallel, "parts in flight over the whole mount")
	parsed(f, "limit-upload", "off", "bytes per second over all connections, as `RATE`: 2MiB, or off", []string{"off"}, func(s string) (err error) {
		c.Limit, err = mount.ParseLimit(s)
		return err
	})
	parsed(f, "close", "wait", "`MODE` of close: wait until the File exists, or background", mount.CloseModes, func(s string) error {
		mode, err := mount.ParseChoice(s, mount.CloseModes)
		c.CloseBackground = mode == "background"
		return err
	})
	f.DurationVar(&c.Settle, "settle", c.Settle, "with --close=background: upload a file so long after its last close or change")
	parsed(f, "unseen-writers", c.UnseenWriters, "`MODE` of close for programs that cannot be observed: background commits after the last close, "+
		"commit at each", mount.UnseenModes, func(s string) (err error) {
		c.UnseenWriters, err = mount.ParseChoice(s, mount.UnseenModes)
		return err
	})
	f.DurationVar(&c.CloseTimeout, "close-timeout", c.CloseTimeout, "how long close waits without one byte being acknowledged")
	parsed(f, "checksum", "md5", "`KIND` of checksum to send: md5 or none", mount.Checksums, func(s string) error {
		kind, err := mount.ParseChoice(s, mount.Checksums)
		c.Checksum = kind == "md5"
		return err
	})
	parsed(f, "write-path", c.WritePath, "`PATH` of written bytes: auto, passthrough or writeback", mount.WritePaths, func(s string) (err error) {
		c.WritePath, err = mount.ParseChoice(s, mount.WritePaths)
		return err
	})
	f.DurationVar(&c.DrainTimeout, "drain-timeout", c.DrainTimeout, "how long the end of the mount waits for uploads")
	f.StringArrayVar(&c.Names.Hold, "hold", nil, "hold files whose name, or path if there is a slash, matches `GLOB`; repeatable")
	f.BoolVar(&c.Names.NoHold, "no-hold", false, "hold nothing, not even editors' temporary files")
	f.DurationVar(&c.Names.HoldFor, "hold-for", c.Names.HoldFor, "upload a held file so long after its last close")
	f.StringArrayVar(&c.Names.Exclude, "exclude", nil, "never upload files that match `GLOB`; repeatable")
	f.BoolVar(&c.Names.NoDefaultExcludes, "no-default-excludes", false, "upload editors' backups and programs' scaffolding too")
	f.StringVar(&c.BaseURL, "base-url", "", "`URL` of the API, instead of OPENAI_BASE_URL")
	f.StringVar(&c.APIKeyFile, "api-key-file", "", "`FILE` with the API key, instead of OPENAI_API_KEY; read again after a 401, a pipe only once")
	f.BoolVar(&c.NoCheck, "no-check", false, "do not try the API key before the mount is ready")
	f.BoolVar(&c.InsecureHTTP, "insecure-http", false, "allow plain http to other hosts than loopback")
	parsed(f, "log-format", c.LogFormat, "`FORMAT` of the log: text or json", mount.LogFormats, func(s string) (err error) {
		c.LogFormat, err = mount.ParseChoice(s, mount.LogFormats)
		return err
	})
	parsed(f, "log-level", "info", "least `LEVEL` to log: debug, info, warn or error", mount.LogLevels, func(s string) (err error) {
		c.LogLevel, err = mount.ParseLogLevel(s)
		return err
	})
	f.StringVar(&c.OnComplete, "on-complete", "", "run `PROGRAM` for each completed file, with its facts in the environment")
	f.StringVar(&c.OnFailure, "on-failure", "", "run `PROGRAM` for each file that has failed or was interrupted")
	parsed(f, "http", "", "`ADDR` to serve a page and metrics on: HOST:PORT, or PORT for 127.0.0.1", nil, func(s string) (err error) {
		c.HTTP, err = mount.ParseListen(s)
		return err
	})
	f.StringSliceVarP(&c.Options, "options", "o", nil,
		"mount options: `OPT[,OPT...]` of "+strings.Join(mount.MountOptions, ", "))
	f.BoolVarP(&c.Foreground, "foreground", "f", false, "stay, and log to standard error")
}

// environment fills in what the official SDKs take from the environment, where no
// flag has said it.
func environment(c *mount.Config) {
	c.APIKey = mount.Secret(strings.TrimSpace(os.Getenv("OPENAI_API_KEY")))
	if c.BaseURL == "" {
		c.BaseURL = os.Getenv("OPENAI_BASE_URL")
	}
	c.Organization = os.Getenv("OPENAI_ORG_ID")
	c.Project = os.Getenv("OPENAI_PROJECT_ID")
	if c.APIKeyFile == "" && !c.Embedded {
		c.APIKeyFile = credential()
	}
	for line := range strings.Lines(os.Getenv("OPENAI_CUSTOM_HEADERS")) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			if c.Header == nil {
				c.Header = make(http.Header)
			}
			c.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
}

// credential is the file in which the service manager gives this service an API key
// (systemd.exec(5), LoadCredential), or "". The units have an empty line in it where
// there is no key.
func credential() string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	name := filepath.Join(dir, "api-key")
	if key, err := os.ReadFile(name); errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.TrimSpace(key)) == 0 {
		return ""
	}
	return name
}
