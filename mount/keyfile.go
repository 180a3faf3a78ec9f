package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"uploadfs/uploader/api/openai"
)

// maxKeyFile is far above the size of any key, in bytes.
const maxKeyFile = 64 << 10

// key is the source of the API key: the file, or what the environment said.
func (c *Config) key() (openai.KeySource, error) {
	if c.APIKeyFile == "" {
		if c.APIKey == "" {
			return nil, errors.New("no API key: set OPENAI_API_KEY (or give --api-key-file), or use --embedded for the built-in API server")
		}
		return openai.StaticKey(string(c.APIKey)), nil
	}
	return KeyFile(c.APIKeyFile)
}

// takeKey reads a key file that can be read only once, and keeps the key in APIKey
// instead. It may wait for the program that writes the key.
func (c *Config) takeKey() error {
	if c.APIKeyFile == "" || repeatable(c.APIKeyFile) {
		return nil
	}
	key, err := readKey(c.APIKeyFile, 0)
	if err != nil {
		return fmt.Errorf("API key file: %w", err)
	}
	c.APIKey, c.APIKeyFile = Secret(strings.TrimSpace(key)), ""
	return nil
}

// KeyFile reads the key from a file at each call of the source. A file that can be
// read only once, as a pipe, is read here and never again. The error says what is
// wrong with the file now.
func KeyFile(name string) (openai.KeySource, error) {
	once := !repeatable(name)
	// A later read must not wait for a writer, if a pipe has taken the file's place.
	read := func() (string, error) { return readKey(name, syscall.O_NONBLOCK) }
	if once {
		read = func() (string, error) { return readKey(name, 0) }
	}
	key, err := read()
	switch {
	case err != nil:
		return nil, fmt.Errorf("API key file: %w", err)
	case once:
		return openai.StaticKey(strings.TrimSpace(key)), nil
	}
	return read, nil
}

// repeatable reports whether a key file gives its content at each read: a regular
// file does, unless its name is a descriptor, which is another file in each process.
// A file that cannot be looked at counts as one: the read says what is wrong.
func repeatable(name string) bool {
	fi, err := os.Stat(name)
	return err != nil || fi.Mode().IsRegular() && !namesDescriptor(name)
}

// namesDescriptor reports whether name leads to one of this process's descriptors,
// as /dev/stdin, /dev/fd/N and /proc/self/fd/N do.
func namesDescriptor(name string) bool {
	for range maxLinks {
		dir, err := filepath.EvalSymlinks(filepath.Dir(name))
		if err != nil {
			return false
		}
		if ok, _ := filepath.Match("/proc/[0-9]*/fd", dir); ok {
			return true
		}
		target, err := os.Readlink(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return false // no symlink
		}
		if name = target; !filepath.IsAbs(name) {
			name = filepath.Join(dir, target)
		}
	}
	return false
}

// readKey reads a key file. With O_NONBLOCK in flags, a file that is not regular is
// an error.
func readKey(name string, flags int) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|flags, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	if flags&syscall.O_NONBLOCK != 0 && !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file any more", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	switch {
	case err != nil:
		return "", err
	case len(b) > maxKeyFile:
		return "", fmt.Errorf("%s is no key file: it has more than %d bytes", name, maxKeyFile)
	case strings.TrimSpace(string(b)) == "":
		return "", fmt.Errorf("%s is empty: write the API key into it", name)
	}
	return string(b), nil
}
