//go:build !linux

package mount

import (
	"context"
	"errors"
	"net"
	"os"
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
func (process) kill() error                { return errLinux }
func (process) close()                     {}

func peer(*net.UnixConn) (process, error)                   { return process{}, errLinux }
func listenIn(string) (net.Listener, error)                 { return nil, errLinux }
func dialIn(context.Context, string) (*net.UnixConn, error) { return nil, errLinux }
func checkFUSE(string, int, func() (string, error)) error   { return errLinux }
func checkOptions([]string, int, string) error              { return errLinux }
func clearPoint(string) (detached bool, err error)          { return false, errLinux }
func openPoint(string) (*os.File, error)                    { return nil, errLinux }
func checkPoint(*os.File) error                             { return errLinux }
func isDead(Entry) (bool, error)                            { return false, errLinux }
func closeOnExec() error                                    { return errLinux }
func leaveTerminal()                                        {}
func examineMachine() []Finding                             { return []Finding{{"kernel", Broken, errLinux.Error()}} }
func writable(string) error                                 { return nil }
func peerUser(*net.UnixConn) (int, error)                   { return -1, errLinux }
func syncMount(Entry) error                                 { return errLinux }

// SyncCommand is the hidden subcommand that calls [SyncMount] with its argument.
const SyncCommand = "sync-mount"

// SyncMount is not available here.
func SyncMount(string) error { return errLinux }
