//go:build !linux

package mount

import (
	"context"
	"errors"
	"net"
	"runtime"
)

// errLinux is the answer of everything that a mount needs of the kernel.
var errLinux = errors.New("mounting needs Linux, this is " + runtime.GOOS)

const (
	fuseDevice = "/dev/fuse"
	fuseConf   = "/etc/fuse.conf"
)

type process struct{}

func (process) wait(context.Context) error { return errLinux }
func (process) close()                     {}

func peer(*net.UnixConn) (process, error)                   { return process{}, errLinux }
func listenIn(string) (net.Listener, error)                 { return nil, errLinux }
func dialIn(context.Context, string) (*net.UnixConn, error) { return nil, errLinux }
func fusermount() (string, error)                           { return "", errLinux }
func checkFUSE(string, int, func() (string, error)) error   { return errLinux }
func checkOptions([]string, int, string) error              { return errLinux }
func clearPoint(string) (detached bool, err error)          { return false, errLinux }
func checkPoint(string) error                               { return errLinux }
func isDead(Entry) (bool, error)                            { return false, errLinux }
func detach(string) error                                   { return errLinux }
func unmountNow(string) error                               { return errLinux }
func closeOnExec() error                                    { return errLinux }
func leaveTerminal()                                        {}
func syncMount(string) error                                { return errLinux }
