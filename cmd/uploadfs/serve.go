package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"uploadfs/mount"
	"uploadfs/uploader/api/local"
)

// shutdownTimeout bounds how long the server's end waits for requests in flight.
const shutdownTimeout = 5 * time.Second

// failModes are the values of --fail-mode.
var failModes = []string{
	string(local.FaultServerError), string(local.FaultRateLimit), string(local.FaultReset), string(local.FaultLost),
}

// serveConfig is what the flags of serve say.
type serveConfig struct {
	listen     string
	dir        string
	keyFile    string
	uploadTTL  time.Duration
	faults     local.Faults
	strictName bool
	countAll   bool
	verbose    bool
}

func serveCommand() *cobra.Command {
	c := serveConfig{listen: "127.0.0.1:8080", uploadTTL: local.DefaultUploadTTL}
	cmd := &cobra.Command{
		Use:   "serve [flags] --dir DIR",
		Short: "run the built-in API server by itself",
		Long: `Serves the Uploads and Files API over DIR until SIGINT or SIGTERM. Clients can work
without the real service, or be tested against a server that fails. The command
prints its base URL when it is ready. Acknowledged content survives the death of
the process: serve the same DIR again.

With --fail-every, every Nth request fails. --fail-mode says how:
  500    is answered 500, and nothing is done
  429    is answered 429 with Retry-After, and nothing is done
  reset  has its connection reset in the middle of its body
  lost   is carried out, and its connection is reset instead of an answer`,
		Example: `  uploadfs serve --dir ~/files
  uploadfs serve --dir /tmp/files --fail-every 5 --fail-mode lost --latency 200ms`,
		Args: takes(0, 0, "the directory is given with --dir"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(cmd); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // a second one ends the process at once
			return serve(ctx, c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	serveFlags(cmd.Flags(), &c)
	return cmd
}

func serveFlags(f *pflag.FlagSet, c *serveConfig) {
	f.SortFlags = false
	f.StringVar(&c.listen, "listen", c.listen, "`ADDR` to listen on, host:port; port 0 lets the kernel choose")
	f.StringVar(&c.dir, "dir", "", "`DIR` to store in; made if it does not exist")
	f.StringVar(&c.keyFile, "api-key-file", "", "`FILE` with the one API key that is accepted (default: any)")
	f.DurationVar(&c.uploadTTL, "upload-ttl", c.uploadTTL, "how long an Upload can be added to and completed")
	f.BoolVar(&c.strictName, "strict-filename", false, "refuse a part whose form field has no filename, as the live service does")
	f.BoolVar(&c.countAll, "count-unlisted-parts", false, "count parts that complete does not list in the total")
	f.IntVar(&c.faults.FailEvery, "fail-every", 0, "fail every `N`th request (default: none)")
	parsed(f, "fail-mode", failModes[0], "`MODE` of failing: "+strings.Join(failModes, ", "), failModes, func(s string) error {
		mode, err := mount.ParseChoice(s, failModes)
		c.faults.Mode = local.FaultMode(mode)
		return err
	})
	f.DurationVar(&c.faults.Latency, "latency", 0, "wait so long before every request")
	f.Func("rate-per-connection", "most bytes a second on one connection, a `SIZE` like 10MiB (default: no bound)", parseRate(&c.faults.RatePerConnection))
	f.Func("rate-total", "most bytes a second on all connections together, a `SIZE` like 10MiB (default: no bound)", parseRate(&c.faults.RateTotal))
	f.IntVar(&c.faults.RequestsPerMinute, "requests-per-minute", 0, "answer 429 to more than `N` requests a minute (default: no bound)")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "log every request")
}

// parseRate parses the value of a flag that is so many bytes a second.
func parseRate(rate *int64) func(string) error {
	return func(s string) error {
		n, err := humanize.ParseBytes(s)
		if err != nil || n == 0 || n > 1<<40 {
			return errors.New("give a size like 10MiB")
		}
		*rate = int64(n)
		return nil
	}
}

// check finds what is wrong with the flags together.
func (c *serveConfig) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case c.dir == "":
		return usage(cmd, errors.New("give the directory to store in with --dir"))
	case c.uploadTTL <= 0:
		return usage(cmd, fmt.Errorf("upload TTL %s: give a time above 0, like 1h", c.uploadTTL))
	case c.faults.Latency < 0:
		return usage(cmd, fmt.Errorf("latency %s: a time cannot be negative", c.faults.Latency))
	case c.faults.RequestsPerMinute < 0, c.faults.RequestsPerMinute == 0 && given("requests-per-minute"):
		return usage(cmd, fmt.Errorf("requests per minute %d: give 1 or more", c.faults.RequestsPerMinute))
	case c.faults.FailEvery < 0, c.faults.FailEvery == 0 && given("fail-every"):
		return usage(cmd, fmt.Errorf("fail every %d: give 1 for all requests, 2 for every second, …", c.faults.FailEvery))
	case c.faults.FailEvery == 0 && given("fail-mode"):
		return usage(cmd, errors.New("--fail-mode without --fail-every fails nothing: give both"))
	}
	if c.faults.Mode == "" {
		c.faults.Mode = local.FaultServerError
	}
	return nil
}

// serve runs the server until ctx ends. It prints the base URL on stdout once the
// server accepts connections, and nothing else.
func serve(ctx context.Context, c serveConfig, stdout, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	o := local.Options{
		Dir:                  c.dir,
		UploadTTL:            c.uploadTTL,
		AllowMissingFilename: !c.strictName,
		CountUnlistedParts:   c.countAll,
		Faults:               c.faults,
		Log:                  log,
	}
	if c.verbose {
		o.Observe = func(e local.Event) { logRequest(log, e) }
	}
	if c.keyFile != "" {
		source, err := mount.KeyFile(c.keyFile)
		if err != nil {
			return err
		}
		key, err := source()
		if err != nil {
			return err
		}
		o.Key = strings.TrimSpace(key)
	}
	addr, err := listenAddress(c.listen, o.Key != "")
	if err != nil {
		return err
	}
	server, err := local.Open(o)
	if err != nil {
		return err
	}
	l, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return errors.Join(fmt.Errorf("%w: give another address with --listen", err), server.Close())
	}
	if o.Key == "" {
		fmt.Fprintln(stderr, "uploadfs: any API key is accepted; --api-key-file makes the server check one")
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	fmt.Fprintf(stdout, "http://%s/v1\n", l.Addr())
	select {
	case err := <-done:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err = server.Shutdown(shutdown)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // the requests still in flight are cut off
	}
	return errors.Join(err, <-done)
}

// listenAddress resolves where to listen. The server speaks plain http and stores
// what it receives, so an address that other machines can reach needs a key.
func listenAddress(listen string, keyed bool) (*net.TCPAddr, error) {
	addr, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return nil, &mount.UsageError{Err: fmt.Errorf("listen %q: give an address like 127.0.0.1:8080: %w", listen, err)}
	}
	if !addr.IP.IsLoopback() && !keyed {
		return nil, fmt.Errorf("%s can be reached from other machines, and there is no key: give one with --api-key-file, or listen on 127.0.0.1", listen)
	}
	return addr, nil
}

func logRequest(log *slog.Logger, e local.Event) {
	args := []any{"method", e.Method, "path", e.Path, "status", e.Status, "received", e.Received, "sent", e.Sent,
		"took", e.Duration.Round(time.Microsecond), "request", e.RequestID}
	if e.Err != nil {
		args = append(args, "error", e.Err)
	}
	log.Info("request", args...)
}
