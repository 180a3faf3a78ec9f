package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
)

// prepare finds every mistake that can be found before the state directory is
// touched, and makes all paths independent of the working directory. It returns the
// opened directory to mount on. detached says that a dead mount was in the way.
func (c *Config) prepare() (dir *os.File, detached bool, err error) {
	if err := c.check(); err != nil {
		return nil, false, err
	}
	list, err := procfs.Mounts()
	if err != nil {
		return nil, false, err
	}
	point, err := resolve(c.MountPoint, list)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("%s does not exist: create it with mkdir -p", Printable(c.MountPoint))
	case err != nil:
		return nil, false, fmt.Errorf("mount point: %w", err)
	}
	c.MountPoint = point
	if c.StateDir == "" {
		if c.StateDir, err = DefaultStateDir(c.MountPoint); err != nil {
			return nil, false, err
		}
	}
	if c.StateDir, err = resolveAbsent(c.StateDir); err != nil {
		return nil, false, err
	}
	if inside(c.StateDir, c.MountPoint) {
		return nil, false, fmt.Errorf("the state directory %s would lie below its own mount point, and wait for itself: give another one with --state-dir",
			Printable(c.StateDir))
	}
	if inside(c.MountPoint, c.StateDir) {
		return nil, false, fmt.Errorf("the mount point %s lies in its own state directory: choose another one", Printable(c.MountPoint))
	}
	if c.APIKeyFile != "" {
		if c.APIKeyFile, err = filepath.Abs(c.APIKeyFile); err != nil {
			return nil, false, err
		}
	}
	if c.OnComplete, err = findHook("--on-complete", c.OnComplete); err != nil {
		return nil, false, err
	}
	if c.OnFailure, err = findHook("--on-failure", c.OnFailure); err != nil {
		return nil, false, err
	}
	if !c.Embedded {
		if _, err := c.key(); err != nil {
			return nil, false, err
		}
	}
	if err := checkFUSE(fuseDevice, os.Geteuid(), fusefs.Fusermount); err != nil {
		return nil, false, err
	}
	if err := checkOptions(c.Options, os.Geteuid(), fuseConf); err != nil {
		return nil, false, err
	}
	if detached, err = clearPoint(c.MountPoint); err != nil {
		return nil, detached, err
	}
	if dir, err = openPoint(c.MountPoint); err != nil {
		return nil, detached, err
	}
	if err := checkPoint(dir); err != nil {
		dir.Close()
		return nil, detached, err
	}
	return dir, detached, nil
}
