//go:build !linux

package backing

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	oPath       = 0
	atEmptyPath = 0
)

func statx(int, string, int) (Info, error) { return Info{}, unix.ENOTSUP }

func openBeneath(int, string, int, uint32) (int, error) { return -1, unix.ENOTSUP }

// FirstHole is not available here; see the Linux version.
func FirstHole(int, int64) (int64, error) { return 0, unix.ENOTSUP }

// StartWriteback is not available here; see the Linux version.
func StartWriteback(*os.File) error { return unix.ENOTSUP }

// Full is not available here; see the Linux version.
func Full(*os.File) bool { return false }

// HasWriter is not available here; see the Linux version.
func HasWriter(*os.File) Tristate { return Unknown }

// SyncFilesystem is not available here; see the Linux version.
func SyncFilesystem(*os.File) error { return unix.ENOTSUP }

// ReopenReadOnly is not available here; see the Linux version.
func ReopenReadOnly(*os.File) (*os.File, error) { return nil, unix.ENOTSUP }

// FineTimes is not available here; see the Linux version.
func FineTimes() bool { return false }
