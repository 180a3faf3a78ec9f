package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"uploadfs/mount"
	"uploadfs/uploader/api/openai"
)

// clientFlags are the flags of a command that calls the API by itself. Together with
// the environment they say which API that is.
type clientFlags struct {
	baseURL      string
	keyFile      string
	key          string // only where keyFlag was called
	insecureHTTP bool
}

func (c *clientFlags) add(f *pflag.FlagSet) {
	f.StringVar(&c.baseURL, "base-url", "", "`URL` of the API, instead of OPENAI_BASE_URL")
	f.StringVar(&c.keyFile, "api-key-file", "", "`FILE` with the API key, instead of OPENAI_API_KEY")
	f.BoolVar(&c.insecureHTTP, "insecure-http", false, "allow plain http to other hosts than loopback")
}

// keyFlag adds --api-key, which the official CLI has.
func (c *clientFlags) keyFlag(f *pflag.FlagSet) {
	f.StringVar(&c.key, "api-key", "", "the API `KEY`; all users of this machine can see it, so prefer the file or OPENAI_API_KEY")
}

// config combines the flags and the environment. parallel is the number of parts in
// flight.
func (c *clientFlags) config(cmd *cobra.Command, parallel int) (openai.Config, error) {
	env := mount.Config{BaseURL: c.baseURL, APIKeyFile: c.keyFile}
	environment(&env)
	o := openai.Config{
		BaseURL:      env.BaseURL,
		Organization: env.Organization,
		Project:      env.Project,
		Header:       env.Header,
		Slots:        parallel,
		InsecureHTTP: c.insecureHTTP,
	}
	if c.key != "" {
		warn(cmd, "the key after --api-key can be seen in the process list: use OPENAI_API_KEY or --api-key-file")
	}
	var err error
	switch {
	case c.key != "" && c.keyFile != "":
		err = usage(cmd, errors.New("give either --api-key or --api-key-file"))
	case c.key != "":
		o.Key = openai.StaticKey(c.key)
	case env.APIKeyFile != "":
		o.Key, err = mount.KeyFile(env.APIKeyFile)
	case env.APIKey != "":
		o.Key = openai.StaticKey(string(env.APIKey))
	default:
		err = errors.New("no API key: set OPENAI_API_KEY, or give --api-key-file")
	}
	return o, err
}

// endpoint says where o uploads to.
func endpoint(o openai.Config) mount.Endpoint {
	return mount.NewEndpoint(o.BaseURL, o.Organization, o.Project)
}

// warn prints a line that changes nothing.
func warn(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(cmd.ErrOrStderr(), "uploadfs: warning: %s\n", mount.Printable(fmt.Sprintf(format, args...)))
}

// required complains about flags that were not given.
func required(cmd *cobra.Command, names ...string) error {
	var missing []string
	for _, name := range names {
		if !cmd.Flags().Changed(name) {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		return usage(cmd, fmt.Errorf("give %s", strings.Join(missing, ", ")))
	}
	return nil
}

// absent adds to the error of a path that does not exist what else the user may have meant.
func absent(err error, otherwise string) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s", err, otherwise)
	}
	return err
}
