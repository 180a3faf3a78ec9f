//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"uploadfs/fusefs/procfs"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// cacheTime is how long the kernel may keep names and attributes, and that a name
// does not exist. Only this mount changes the backing tree, so the kernel's copies
// do not age. The bound is for an administrator who removes something in the state
// directory by hand. The kernel never caches extended attributes.
const cacheTime = time.Minute

const (
	maxWrite = 1 << 20 // bytes of one READ or WRITE: the most that Linux sends by default

	// maxBackground is how many requests of write-back and read-ahead may be
	// under way. The kernel's own default, 12, is soon taken by one copy.
	maxBackground = 64
)

// Server is a mount that is being served. Its methods may be called concurrently.
type Server struct {
	fuse  *fuse.Server
	mount procfs.Mount // as it was when it was made
	path  WritePath
	notes *mountNotes
	done  chan struct{} // closed when the last request has been answered
}

// Mount mounts the tree on the directory mountPoint and serves it until it is
// unmounted. When it returns, the mount is ready.
//
// As root it calls mount(2) itself, on the opened directory and so on no other one,
// and falls back to fusermount3; other users mount through fusermount3. The process's
// umask must be 0: the caller's is applied to what it asks for.
func Mount(mountPoint string, o Options, m MountOptions) (*Server, error) {
	if m.Dir == nil {
		// Resolved now: once mounted, a lookup of the mount point asks this daemon.
		path, err := resolve(mountPoint)
		if err == nil {
			m.Dir, err = OpenMountPoint(path)
		}
		if err != nil {
			return nil, fmt.Errorf("mount point: %w", err)
		}
		defer m.Dir.Close()
		mountPoint = path
	}
	switch o.WritePath {
	case Writeback, Passthrough:
		return mount(mountPoint, o, m, o.WritePath)
	case "", Auto:
	default:
		return nil, fmt.Errorf("write path %q is not known: use %s, %s or %s", o.WritePath, Auto, Passthrough, Writeback)
	}
	if os.Geteuid() == 0 { // the kernel refuses passthrough to other users
		s, err := mount(mountPoint, o, m, Passthrough)
		if !errors.Is(err, errNoPassthrough) {
			return s, err
		}
		o.Logger.Info("no passthrough, writing through the cache", "why", err)
	}
	return mount(mountPoint, o, m, Writeback)
}

// mount mounts with one write path. With errNoPassthrough nothing is mounted, and
// another path may be tried.
func mount(mountPoint string, o Options, m MountOptions, path WritePath) (*Server, error) {
	root, err := newRoot(o, path)
	if err != nil {
		return nil, fmt.Errorf("backing tree: %w", err)
	}
	depth, err := stackDepth(o.Tree)
	if err != nil {
		return nil, err
	}

	timeout := cacheTime
	logger := slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn)
	fo := &fs.Options{
		EntryTimeout:    &timeout,
		AttrTimeout:     &timeout,
		NegativeTimeout: &timeout,
		NullPermissions: true, // mode 0000 is what it says
		RootStableAttr:  &fs.StableAttr{Ino: root.info.Key.Ino, Gen: uint64(root.info.Key.Birth)},
		Logger:          logger,
		MountOptions: fuse.MountOptions{
			Name:    fsName,
			FsName:  m.Source,
			Options: append([]string{"default_permissions"}, m.Options...),
			// attach and fusermount3 both begin with nosuid and nodev.
			MaxWrite:             maxWrite,
			MaxBackground:        maxBackground,
			EnableSymlinkCaching: true,
			Logger:               logger,
			ExtraCapabilities:    capabilities,
			MaxStackDepth:        depth,
		},
	}
	// The kernel has one or the other of write-back and passthrough.
	if path == Passthrough {
		fo.ExtraCapabilities |= fuse.CAP_PASSTHROUGH
	} else {
		fo.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
		fo.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	}
	g := &nameLock{RawFileSystem: &openModes{fs.NewNodeFS(&node{root: root}, fo)}, root: root}
	s := &Server{path: path, notes: &root.callers.notes, done: make(chan struct{})}
	if s.fuse, err = connect(g, mountPoint, m.Dir, &fo.MountOptions); err != nil {
		return nil, fmt.Errorf("mount on %s: %w", mountPoint, err)
	}
	go func() {
		defer close(s.done)
		s.fuse.Serve()
	}()
	err = s.fuse.WaitMount()
	if err == nil {
		s.mount, err = identify(m.Dir)
		root.callers.mounted(s.mount, m.Options)
	}
	if err == nil && path == Passthrough {
		if why := probe(s.fuse, o.Tree); why != nil {
			err = fmt.Errorf("%w: %w", errNoPassthrough, why)
		}
	}
	if err != nil {
		err = fmt.Errorf("mount on %s: %w", mountPoint, err)
		if s.mount.ID != 0 && s.Unmount() == nil {
			s.Wait()
		}
		return nil, err
	}
	return s, nil
}

// connect makes the mount and reads the kernel's first request. go-fuse takes the
// connection of a mount that exists as the mount point /dev/fd/N.
func connect(g fuse.RawFileSystem, mountPoint string, dir *os.File, o *fuse.MountOptions) (*fuse.Server, error) {
	if os.Geteuid() == 0 {
		fd, err := attach(dir, o)
		if err == nil {
			server, err := fuse.NewServer(g, fmt.Sprintf("/dev/fd/%d", fd), o)
			if err != nil {
				if m, lost := identify(dir); lost == nil {
					err = errors.Join(err, Unmount(m, true))
				}
			}
			return server, err
		}
		if !errors.Is(err, unix.EPERM) {
			return nil, err
		}
	}
	return fuse.NewServer(g, mountPoint, o)
}

// capabilities are asked of the kernel beside go-fuse's own choice.
//
// HANDLE_KILLPRIV_V2: without it the kernel asks for security.capability before
// every single write, which costs a request each; the duty that comes with it is
// in setattr. READDIRPLUS_AUTO: attributes come with a listing only when
// the caller has shown that it wants them. DONT_MASK: see openModes.
const capabilities = fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_DONT_MASK

// resolve turns a path into the form of /proc/self/mountinfo: absolute and without
// symlinks.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// Wait returns when the mount is gone, by any program's doing, and the last request
// has been answered.
func (s *Server) Wait() { <-s.done }

// Unmount unmounts. It fails, and leaves the mount as it was, while files of it
// are in use. A mount that is gone already is no error.
func (s *Server) Unmount() error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if err := Unmount(s.mount, false); !errors.Is(err, ErrNotMounted) {
		return err
	}
	return nil
}

// Mounted is the mount as it was when it was made; see [Current].
func (s *Server) Mounted() procfs.Mount { return s.mount }

// Notes are what users of the mount should know, one sentence each: which programs it
// cannot observe, and who owns their files. More may follow as programs write.
func (s *Server) Notes() []string { return s.notes.list() }

// WritePath is the write path in use, never Auto.
func (s *Server) WritePath() WritePath { return s.path }
