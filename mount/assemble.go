package mount

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
	"uploadfs/mount/metrics"
	"uploadfs/uploader"
	"uploadfs/uploader/api/openai"
	"uploadfs/uploader/api/retry"
	"uploadfs/uploader/backing"
)

// assembly is what a mount is made of, in the order in which it is made.
type assembly struct {
	metrics  *metrics.Metrics
	limit    *openai.Limit
	embedded *embedded // nil unless the API is served from here
	keyCheck *keyCheck // nil where the key is not checked
	tree     *backing.Tree
	uploader *uploader.Uploader
	server   *fusefs.Server // nil until mount
}

// assemble puts everything below the kernel together: the API, the decorator that
// retries, the backing tree, the uploader. The state directory is bound to the
// endpoint only when the endpoint is known to be one. ended is told of files as
// [uploader.Options] says.
func assemble(c *Config, dir *stateDir, m *metrics.Metrics, ended func(*uploader.Status), log *slog.Logger) (*assembly, error) {
	api := c.apiConfig()
	a := &assembly{metrics: m, limit: openai.NewLimit(c.Limit)}
	api.Limit = a.limit
	var client *openai.Backend
	var err error
	if !c.Embedded {
		if api.Key, err = c.key(); err != nil {
			return nil, err
		}
		// The endpoint's mistakes come to light here, before it is written down.
		if client, err = openai.New(api); err != nil {
			return nil, err
		}
	}
	bound, err := dir.boundTo(c.endpoint())
	if err != nil {
		return nil, err
	}
	if !c.Embedded && !c.NoCheck {
		a.keyCheck = startKeyCheck(client, keyCheckAgain, log)
	}
	if !bound {
		// Later a refused key is no reason not to mount: programs would write into the
		// bare directory.
		if err = a.keyCheck.refusal(); err == nil {
			err = dir.bind(c.endpoint())
		}
		if err != nil {
			return nil, errors.Join(err, a.close())
		}
	}
	if c.Embedded {
		if a.embedded, err = startEmbedded(dir, log.With("part", "embedded")); err != nil {
			return nil, fmt.Errorf("embedded server: %w", err)
		}
		api.BaseURL, api.Key = a.embedded.BaseURL, openai.StaticKey(a.embedded.APIKey)
		api.Organization, api.Project, api.Header = "", "", nil
		api.Dial = a.embedded.server.Dial
		if client, err = openai.New(api); err != nil {
			return nil, errors.Join(err, a.close())
		}
	}
	if a.tree, err = backing.Open(dir.file(treeDir)); err != nil {
		return nil, errors.Join(err, a.close())
	}
	a.uploader, err = uploader.Open(uploader.Options{
		Backend:      a.metrics.Calls(retry.New(a.metrics.Attempts(client), retry.Options{})),
		Tree:         a.tree,
		StateDir:     dir.path,
		PartSize:     c.PartSize,
		Parallel:     c.Parallel,
		Checksum:     c.Checksum,
		Purpose:      c.Purpose,
		Names:        c.Names,
		CloseTimeout: c.CloseTimeout,
		Background:   c.CloseBackground,
		Settle:       c.Settle,
		SyncOnClose:  true,
		BootID:       procfs.BootID(),
		Logger:       log,
		Ended:        ended,
	})
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// apiConfig is what the configuration says of the API, but for the key.
func (c *Config) apiConfig() openai.Config {
	return openai.Config{
		BaseURL:      c.BaseURL,
		Organization: c.Organization,
		Project:      c.Project,
		Header:       c.Header,
		Slots:        MaxParallel, // the uploader bounds what is under way, and can be told to change that
		InsecureHTTP: c.InsecureHTTP,
	}
}

// retry tries a file again, or what has failed in a directory and below it.
func (a *assembly) retry(path string) (int, error) {
	if info, err := a.tree.Stat(path); err == nil && info.Dir() {
		return a.uploader.RetryBelow(path)
	}
	return 1, a.uploader.Retry(path)
}

// mount asks the kernel for the mount. The state directory is its source, so that
// a program that sees the mount finds its daemon.
func (a *assembly) mount(c *Config, point *os.File, dir *stateDir, log *slog.Logger) error {
	server, err := fusefs.Mount(c.MountPoint, fusefs.Options{
		Tree:            a.tree,
		Uploader:        a.uploader,
		Logger:          log,
		CloseBackground: c.CloseBackground,
		UnseenWriters:   fusefs.UnseenWriters(c.UnseenWriters),
		WritePath:       fusefs.WritePath(c.WritePath),
		Waited:          a.metrics.Closed,
	}, fusefs.MountOptions{Dir: point, Source: dir.path, Options: c.Options})
	a.server = server
	return err
}

// close ends the parts in the opposite order. The mount itself is gone by then,
// or ends with the process.
func (a *assembly) close() error {
	var errs []error
	a.keyCheck.close()
	if a.uploader != nil {
		errs = append(errs, a.uploader.Close())
	}
	if a.embedded != nil {
		errs = append(errs, a.embedded.close())
	}
	// Files that are still open on a detached mount are served until the process
	// is gone, so the tree's descriptor is left to the kernel while there are any.
	if a.tree != nil && a.server == nil {
		errs = append(errs, a.tree.Close())
	}
	return errors.Join(errs...)
}
