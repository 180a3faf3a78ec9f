//go:build !linux

package fusefs

import (
	"errors"
	"runtime"
)

// Server is a mount that is being served; see the Linux version.
type Server struct{}

// Mount is not available here: the mount relies on Linux's FUSE and /proc.
func Mount(string, Options, MountOptions) (*Server, error) {
	return nil, errors.New("mounting needs Linux, this is " + runtime.GOOS + ": use `uploadfs put` to upload files")
}

// Wait returns at once: there is no mount.
func (s *Server) Wait() {}

// Unmount does nothing: there is no mount.
func (s *Server) Unmount() error { return nil }

// Notes is empty: there is no mount.
func (s *Server) Notes() []string { return nil }

// WritePath is "": there is no mount.
func (s *Server) WritePath() WritePath { return "" }
