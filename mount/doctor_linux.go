package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"uploadfs/fusefs"
	"uploadfs/fusefs/procfs"
)

// The versions of Linux that make a difference.
const (
	passthroughMajor, passthroughMinor = 6, 9
	exitMajor, exitMinor               = 6, 15
)

// examineMachine checks the kernel, and what this user may do.
func examineMachine() []Finding {
	me, err := procfs.ReadStatus(os.Getpid())
	admin := err == nil && me.Capable(unix.CAP_SYS_ADMIN)
	return append(examineKernel(admin), examineFUSE(os.Geteuid()), examineHelper(os.Geteuid()),
		examinePrivileges(os.Geteuid(), admin), examineProcesses())
}

func examineKernel(admin bool) []Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []Finding{{"kernel", Broken, err.Error()}}
	}
	release := unix.ByteSliceToString(u.Release[:])
	kernel := Finding{"kernel", Fine, "Linux " + release}
	if !atLeast(release, exitMajor, exitMinor) {
		kernel = Finding{"kernel", Note, fmt.Sprintf("Linux %s: from %d.%d on the mount knows better how a program has ended", release, exitMajor, exitMinor)}
	}
	through := Finding{"passthrough", Fine, "possible: writes go at the speed of the disk"}
	switch {
	case !atLeast(release, passthroughMajor, passthroughMinor):
		through = Finding{"passthrough", Note, fmt.Sprintf("needs Linux %d.%d: mounts write back, which is slower", passthroughMajor, passthroughMinor)}
	case !admin:
		through = Finding{"passthrough", Note, "needs root (CAP_SYS_ADMIN): mounts write back, which is slower"}
	}
	return []Finding{kernel, through}
}

// atLeast compares the release of a kernel, as in 6.18.5-generic.
func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

func examineFUSE(uid int) Finding {
	helper := func() (string, error) { return "", nil } // is a check of its own
	if err := checkFUSE(fuseDevice, uid, helper); err != nil {
		return Finding{fuseDevice, Broken, err.Error()}
	}
	return Finding{fuseDevice, Fine, "can be opened"}
}

func examineHelper(uid int) Finding {
	path, err := fusefs.Fusermount()
	switch {
	case err == nil:
		return Finding{"fusermount3", Fine, path}
	case uid == 0:
		return Finding{"fusermount3", Note, "missing: root mounts without it where mount(2) is allowed, other users need the package fuse3"}
	}
	return Finding{"fusermount3", Broken, "missing, and only root can mount without it: install the package fuse3"}
}

func examinePrivileges(uid int, admin bool) Finding {
	switch {
	case uid == 0 && admin:
		return Finding{"privileges", Fine, "root"}
	case uid == 0:
		return Finding{"privileges", Note, "root without CAP_SYS_ADMIN: mounts go through fusermount3; in a container add the capability SYS_ADMIN"}
	}
	return Finding{"privileges", Note, fmt.Sprintf("user %d: a mount shows its files to this user only, see -o allow_other", uid)}
}

// examineProcesses checks whether the mount will see the programs that write.
func examineProcesses() Finding {
	const check = "processes"
	initial, err := procfs.InInitialPIDNamespace()
	if err == nil && !initial {
		return Finding{check, Note, "this is a PID namespace of its own: programs outside cannot be observed; share the host's (hostPID, shareProcessNamespace), or see --unseen-writers"}
	}
	if _, err := procfs.ReadStat(1); errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return Finding{check, Note, "/proc hides the processes of others (hidepid): their programs cannot be observed; mount as root, or see --unseen-writers"}
	}
	return Finding{check, Fine, "visible"}
}

// writable reports why no file can be made in a directory.
func writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
