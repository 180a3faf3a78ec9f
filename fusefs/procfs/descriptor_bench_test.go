package procfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkDescriptors reads the table of a process with many descriptors, and reads
// it by os.ReadFile, as a program does that is not in a hurry.
func BenchmarkDescriptors(b *testing.B) {
	const many = 15000
	f, err := os.Open("/dev/null")
	require.NoError(b, err)
	defer f.Close()
	for range many {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(b, err)
		defer unix.Close(fd)
	}
	for name, read := range map[string]func(pid int) (int, error){
		"raw": func(pid int) (n int, err error) {
			err = EachDescriptor(pid, func(Descriptor) bool { n++; return true })
			return n, err
		},
		"os.ReadFile": readFiles,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				n, err := read(os.Getpid())
				require.NoError(b, err)
				require.GreaterOrEqual(b, n, many)
			}
		})
	}
}

// readFiles counts a process's descriptors by os.ReadFile.
func readFiles(pid int) (n int, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fdinfo", pid))
	for _, e := range entries {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, e.Name()))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch key {
			case "pos", "mnt_id":
				_, _ = strconv.ParseInt(value, 10, 64)
			case "flags":
				_, _ = strconv.ParseInt(value, 8, 64)
			case "ino":
				_, _ = strconv.ParseUint(value, 10, 64)
				n++
			}
		}
	}
	return n, err
}
