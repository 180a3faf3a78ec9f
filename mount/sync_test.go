//go:build linux

package mount

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpenForWriting(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	w, err := os.Create(at("written"))
	require.NoError(t, err)
	defer w.Close()
	again, err := os.OpenFile(at("written"), os.O_RDWR|os.O_APPEND, 0)
	require.NoError(t, err)
	defer again.Close()
	require.NoError(t, os.WriteFile(at("read"), nil, 0o600))
	r, err := os.Open(at("read"))
	require.NoError(t, err)
	defer r.Close()
	gone, err := os.Create(at("gone"))
	require.NoError(t, err)
	defer gone.Close()
	require.NoError(t, os.Remove(at("gone")))

	require.Equal(t, []string{at("written")}, openForWriting(dir))
	require.Empty(t, openForWriting(dir[:len(dir)-1]), "a prefix of a name is no directory")
	require.NoError(t, syncMount(dir))
}
