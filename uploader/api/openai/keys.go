package openai

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode"
)

// KeySource returns the current API key, or "" if there is none. White space around
// it is removed, so it may return the content of a file. It is called rarely and
// never concurrently, and it may read a file.
type KeySource func() (string, error)

// StaticKey returns a KeySource for a key that does not change.
func StaticKey(key string) KeySource {
	return func() (string, error) { return key, nil }
}

// minSecret is the length in bytes from which a key is redacted. A shorter key is a
// placeholder for a server that checks none. Redacting it would damage IDs and other
// words that happen to contain it.
const minSecret = 8

// keyring holds the key in use. It may be used concurrently.
type keyring struct {
	source KeySource // nil: the key is final

	mu   sync.Mutex
	key  string
	seen []string // every key so far, for redaction; each rotation adds one
}

// newKeyring asks source for the first key.
func newKeyring(source KeySource) (*keyring, error) {
	k := &keyring{source: source}
	if source == nil {
		return k, nil
	}
	key, err := k.read()
	if err != nil {
		return nil, err
	}
	k.use(key)
	return k, nil
}

func (k *keyring) read() (string, error) {
	key, err := k.source()
	if err != nil {
		return "", fmt.Errorf("read the API key: %w", err)
	}
	key = strings.TrimSpace(key)
	if strings.ContainsFunc(key, func(r rune) bool { return r > unicode.MaxASCII || r <= ' ' || r == 0x7f }) {
		return "", errors.New("the API key contains white space, control or non-ASCII characters: give the key alone")
	}
	return key, nil
}

// use makes key the current key. The caller holds mu, or no other goroutine has k yet.
func (k *keyring) use(key string) {
	k.key = key
	if len(key) >= minSecret {
		k.seen = append(k.seen, key)
	}
}

func (k *keyring) current() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.key
}

// renew returns the key to use after the key refused was answered with 401. It
// returns the same key if there is no other. When many calls are refused at once,
// one of them reads the source.
func (k *keyring) renew(refused string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.source == nil || k.key != refused {
		return k.key, nil
	}
	key, err := k.read()
	if err != nil {
		return "", err
	}
	if key != refused {
		k.use(key)
	}
	return key, nil
}

// redact replaces every key in s. s may contain what a server said.
func (k *keyring) redact(s string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.seen {
		s = strings.ReplaceAll(s, key, "[API key]")
	}
	return s
}
