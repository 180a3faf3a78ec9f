//go:build linux

package fusefs

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMountData(t *testing.T) {
	const safe = unix.MS_NOSUID | unix.MS_NODEV
	for _, c := range []struct {
		options []string
		flags   uintptr
		data    []string
	}{
		{nil, safe, nil},
		{[]string{"default_permissions", "allow_other"}, safe, []string{"default_permissions", "allow_other"}},
		{[]string{"suid"}, unix.MS_NODEV, nil},
		{[]string{"dev", "suid"}, 0, nil},
		{[]string{"suid", "nosuid", "dev", "nodev"}, safe, nil},
		{[]string{"noexec", "ro"}, safe | unix.MS_NOEXEC | unix.MS_RDONLY, nil},
		{[]string{"noexec", "exec", "ro", "rw"}, safe, nil},
	} {
		flags, data := mountData(c.options)
		require.Equal(t, c.flags, flags, c.options)
		require.Equal(t, c.data, data, c.options)
	}
}
