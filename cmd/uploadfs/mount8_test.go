//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/state"
)

// system gives this namespace a /sbin with the command and its helpers, an /etc/fstab with these lines,
// and a /run/mount that mount(8) may write. The machine keeps its own.
func system(t *testing.T, fstab string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a namespace its own /sbin and /etc/fstab")
	}
	dir, err := os.MkdirTemp(base, "system-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	bind := func(source, target, kind, data string, flags uintptr) {
		t.Helper()
		require.NoError(t, unix.Mount(source, target, kind, flags, data), "%s on %s", source, target)
		t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	}
	bind("tmpfs", dir, "tmpfs", "", 0)
	sbin, err := filepath.EvalSymlinks("/sbin")
	require.NoError(t, err)
	upper, work, table := filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "fstab")
	require.NoError(t, os.Mkdir(upper, 0o755))
	require.NoError(t, os.Mkdir(work, 0o755))
	require.NoError(t, os.WriteFile(table, []byte(fstab), 0o644))
	for _, name := range []string{"uploadfs", "mount.uploadfs", "mount.fuse.uploadfs", "umount.fuse.uploadfs"} {
		require.NoError(t, os.Symlink(binary, filepath.Join(upper, name)))
	}
	bind("overlay", sbin, "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", sbin, upper, work), 0)
	bind(table, "/etc/fstab", "", "", unix.MS_BIND)
	require.NoError(t, os.MkdirAll("/run/mount", 0o755))
	bind("tmpfs", "/run/mount", "tmpfs", "", 0)
}

// bare runs a program of the system with nothing in its environment, as at boot.
func (b *box) bare(name string, args ...string) *exec.Cmd {
	cmd := b.command(name, args...)
	cmd.Env, cmd.Dir = []string{}, "/"
	return cmd
}

// flagsOf are the mount's flags, as mount(8) shows them.
func (b *box) flagsOf() string {
	b.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(b, err)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[4] == b.point {
			return fields[5]
		}
	}
	require.Fail(b, "nothing is mounted on "+b.point)
	return ""
}

// A line of /etc/fstab mounts, for root and for a user, without an environment. Its
// options are the flags of mount, and umount(8) waits for uploads.
func TestFstab(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(b.T)
		key := b.path("key")
		require.NoError(b, os.WriteFile(key, []byte(testKey+"\n"), 0o600))
		require.NoError(b, os.Chown(key, b.user.uid, b.user.uid))
		options := strings.Join([]string{
			"_netdev", "nofail", "x-systemd.automount", "x-systemd.requires=network-online.target", "noatime",
			"default_permissions", "user", "purpose=batch", "close=background", `exclude="a,*"`, "exclude=b*", "embedded=false",
			"drain-timeout=" + testTimeout.String(),
			"api-key-file=" + key, "base-url=" + server.url, "state-dir=" + b.state,
		}, ",")
		system(b.T, fmt.Sprintf("jobs %s fuse.uploadfs %s 0 0\n", b.point, options))

		r := b.do(b.bare("/bin/mount", b.point))
		require.Zero(b, r.code, r.stderr)
		b.cleanup()
		require.Contains(b, b.flagsOf(), "nosuid,nodev")
		if b.user.uid == 0 {
			r = b.do(b.bare("/bin/mount", "-a", "-t", "fuse.uploadfs"))
			require.Zero(b, r.code, r.stderr)
			require.Empty(b, r.stderr, "what is mounted stays so")
		}
		require.Equal(b, server.url, b.status().Endpoint)
		b.shOK(`echo 1 > "$M/a,1"; echo 2 > "$M/b"`)
		require.Equal(b, state.Excluded, b.info("a,1").State)
		require.Equal(b, state.Excluded, b.info("b").State)

		started, release := server.block(b.T)
		b.shOK(`echo 3 > "$M/c"`)
		<-started
		pid := b.pid()
		ended := make(chan result, 1)
		umount := b.bare("/bin/umount", b.point)
		go func() { ended <- b.do(umount) }()
		b.await("the kernel gives the mount up first", func() bool { return !b.mounted() })
		require.Empty(b, ended, "umount returned with an upload under way")
		release()
		r = <-ended
		require.Zero(b, r.code, r.stderr)
		awaitEnd(b, pid)
		files := server.Files()
		require.Len(b, files, 1)
		require.Equal(b, "batch", files[0].Purpose)
	})
}

// mount(8) answers with its own exit codes, and says what was wrong.
func TestMountHelperRefuses(t *testing.T) {
	b := newBox(t, users()[0])
	system(t, "")
	for options, want := range map[string]struct {
		code int
		text string
	}{
		"purpos=batch":       {1, `unknown mount option "purpos": did you mean purpose?`},
		"close=never":        {1, "use wait or background"},
		"purpose":            {1, "write purpose=…"},
		`exclude="a`:         {1, "a double quote is not closed"},
		"remount,embedded":   {32, "unmount, and mount again"},
		"noatime":            {32, "no API key"},
		"api-key-file=/none": {32, "API key file"},
	} {
		r := b.do(b.bare("/sbin/mount.fuse.uploadfs", "jobs", b.point, "-o", options))
		require.Equal(b, want.code, r.code, "%s: %s", options, r.stderr)
		require.Contains(b, r.stderr, want.text)
		require.Equal(b, 1, strings.Count(r.stderr, "\n"), r.stderr)
		require.False(b, b.mounted())
	}
	r := b.do(b.bare("/bin/mount", "-t", "fuse.uploadfs", "jobs", b.point, "-o", "noatime"))
	require.Equal(b, 32, r.code, "%s%s", r.stdout, r.stderr)
	require.Contains(b, r.stderr, "no API key")
	// Nothing is mounted where mount(8) only pretends, or where it is asked to bear with options.
	r = b.do(b.bare("/bin/mount", "-f", "-t", "uploadfs", "jobs", b.point, "-o", "embedded"))
	require.Zero(b, r.code, r.stderr)
	require.False(b, b.mounted())
	r = b.do(b.bare("/sbin/mount.uploadfs", "jobs", b.point, "-sf", "-o", "embedded,new=1"))
	require.Zero(b, r.code, r.stderr)
	r = b.do(b.bare("/sbin/umount.fuse.uploadfs", b.point))
	require.Equal(b, 32, r.code, r.stderr)
	require.Contains(b, r.stderr, "is no uploadfs mount")
}

// mount.fuse3(8) calls the command by its own name, and gives dev and suid to root's
// mounts unasked.
func TestMountFuse3(t *testing.T) {
	b := newBox(t, users()[0])
	system(t, "")
	for _, args := range [][]string{
		{"/sbin/mount.fuse3", "uploadfs#jobs"},
		{"/bin/mount", "-t", "fuse", "uploadfs#some jobs"},
	} {
		r := b.do(b.bare(args[0], append(args[1:], b.point, "-o", `embedded,noatime,exclude="a,b",state-dir=`+b.state)...))
		require.Zero(b, r.code, "%s%s", r.stdout, r.stderr)
		b.cleanup()
		require.Contains(b, b.flagsOf(), "nosuid,nodev", "%s", args)
		b.shOK(`echo 1 > "$M/a"; echo 1 > "$M/a,b"`)
		require.Equal(b, state.Completed, b.info("a").State)
		require.Equal(b, state.Excluded, b.info("a,b").State)
		b.ok("unmount", b.point)
	}
}

// autofsCatatonic is AUTOFS_IOC_CATATONIC: the kernel asks for no mount any more.
const autofsCatatonic = 0x9362

// A mount is made on a directory that systemd watches for x-systemd.automount, and the
// making of it does not count as a use.
func TestMountOnAutomount(t *testing.T) {
	b := newBox(t, users()[0])
	system(t, "")
	listen, asked, err := os.Pipe()
	require.NoError(t, err)
	defer listen.Close()
	options := fmt.Sprintf("fd=%d,pgrp=%d,minproto=5,maxproto=5,direct", asked.Fd(), unix.Getpgrp())
	require.NoError(t, unix.Mount("systemd-1", b.point, "autofs", 0, options))
	t.Cleanup(func() { unix.Unmount(b.point, unix.MNT_DETACH) })
	asked.Close()
	root, err := os.Open(b.point)
	require.NoError(t, err)
	defer root.Close()

	cmd := b.bare("/bin/mount", "-t", "fuse.uploadfs", "jobs", b.point, "-o", "embedded,state-dir="+b.state)
	cmd.SysProcAttr.Setpgid = true // else it is one of the processes that may look
	used := make(chan struct{})
	go func() { // ends with the pipe
		if n, _ := listen.Read(make([]byte, 1000)); n > 0 {
			close(used)
			_ = unix.IoctlSetInt(int(root.Fd()), autofsCatatonic, 0) // no process waits any more
		}
	}()
	r := b.do(cmd)
	select {
	case <-used:
		require.Fail(t, "the mount would have waited for itself")
	default:
	}
	require.Zero(t, r.code, r.stderr)
	b.cleanup()
	b.shOK(`echo 1 > "$M/a"`)
	require.Equal(t, state.Completed, b.info("a").State)
	b.ok("unmount", b.point)
}

// A read-only mount is one, however mount(8) says so.
func TestHelperMountsReadOnly(t *testing.T) {
	for _, argv := range [][]string{{"jobs", "/absent", "-r", "-o", "embedded"}, {"jobs", "/absent", "-o", "embedded,ro"}} {
		args, err := mountHelper(argv)
		require.NoError(t, err)
		require.Equal(t, []string{"mount", "--embedded", "--options=ro", "--", "/absent"}, args)
	}
}
