package fusefs_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCopyIsOneUploadOfWholeParts(t *testing.T) {
	s := newStack(t, stackOptions{})
	src, want := source(t, 20*mib+123)
	s.run(`cp "$1" f.bin`, src)
	s.completed("f.bin", want)
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)
	require.Equal(t, int64(3), s.API.Stats().PartsStored)
}
