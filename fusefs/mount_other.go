//go:build !linux

package fusefs

import (
	"errors"
	"os"
	"os/exec"
	"runtime"

	"uploadfs/fusefs/procfs"
)

var errLinux = errors.New("mounting needs Linux, this is " + runtime.GOOS + ": use `uploadfs put` to upload files")

// Server is a mount that is being served; see the Linux version.
type Server struct{}

// Mount is not available here: the mount relies on Linux's FUSE and /proc.
func Mount(string, Options, MountOptions) (*Server, error) {
	return nil, errLinux
}

// Wait returns at once: there is no mount.
func (s *Server) Wait() {}

// Unmount does nothing: there is no mount.
func (s *Server) Unmount() error { return nil }

// Notes is empty: there is no mount.
func (s *Server) Notes() []string { return nil }

// WritePath is "": there is no mount.
func (s *Server) WritePath() WritePath { return "" }

// Mounted is nothing: there is no mount.
func (s *Server) Mounted() procfs.Mount { return procfs.Mount{} }

// OpenMountPoint is not available here.
func OpenMountPoint(string) (*os.File, error) { return nil, errLinux }

// Current is not available here.
func Current(procfs.Mount) (procfs.Mount, error) { return procfs.Mount{}, ErrNotMounted }

// Unmount is not available here.
func Unmount(procfs.Mount, bool) error { return ErrNotMounted }

// Fusermount is not available here.
func Fusermount() (string, error) { return "", exec.ErrNotFound }
