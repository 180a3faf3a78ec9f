package mount

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The right sides were printed by systemd-escape -p.
func TestEscapeIsSystemds(t *testing.T) {
	for in, want := range map[string]string{
		"/":                 "-",
		"/a/b":              "a-b",
		"//a///b//":         "a-b",
		"/.a/b.":            `\x2ea-b.`,
		"/a/.b":             "a-.b",
		"/a b/ü//x/":        `a\x20b-\xc3\xbc-x`,
		`/a-b\c`:            `a\x2db\x5cc`,
		"/home/u/up:1_2.3":  "home-u-up:1_2.3",
		"/mnt/\xff\n\x7f":   `mnt-\xff\x0a\x7f`,
		"/srv/100%/~x/a=b,": `srv-100\x25-\x7ex-a\x3db\x2c`,
	} {
		require.Equal(t, want, Escape(in), "%q", in)
	}
}

func TestDefaultStateDir(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/xdg")
	t.Setenv("HOME", "/home/u")
	dir := func() string {
		d, err := DefaultStateDir("/home/u/up")
		require.NoError(t, err)
		return d
	}
	if isRoot() {
		require.Equal(t, "/var/lib/uploadfs/home-u-up", dir())
	} else {
		require.Equal(t, "/xdg/uploadfs/home-u-up", dir())
		t.Setenv("XDG_STATE_HOME", "relative/is/ignored")
		require.Equal(t, "/home/u/.local/state/uploadfs/home-u-up", dir())
		t.Setenv("HOME", "")
		_, err := DefaultStateDir("/home/u/up")
		require.ErrorContains(t, err, "give --state-dir")
	}
	_, err := DefaultStateDir("/" + strings.Repeat("é", 100))
	require.ErrorContains(t, err, "give --state-dir", "no file may be called so")
}
