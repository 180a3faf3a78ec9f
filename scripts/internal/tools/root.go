//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// suite is the Debian release that the tools are of: their behaviour is that of their
// versions.
const suite = "bookworm"

// aptSources are the lists of this machine, one of which has to be of Debian.
var aptSources = []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"}

// programs is the root directory that the tools are installed in.
type programs struct {
	installed string // where it stays
	dir       string // where this run sees it
}

// install adds the packages that the root lacks. What cannot be installed is said; the
// cases of its programs are skipped.
func (p *programs) install(ctx context.Context, packages []string, out *os.File) {
	missing := p.missing(packages)
	if len(missing) == 0 {
		return
	}
	fmt.Fprintln(out, "installing into", p.installed+":", strings.Join(missing, " "))
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if text, err := os.ReadFile(name); err == nil {
			os.WriteFile(p.installed+name, text, 0o644)
		}
	}
	apt := func(args ...string) error {
		// No file of this root is worth a wait for the disk.
		args = append([]string{p.dir, "apt-get", "-qq", "-o", "Dpkg::Options::=--force-unsafe-io"}, args...)
		cmd := exec.CommandContext(ctx, "chroot", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
		cmd.Stdout, cmd.Stderr = out, out
		return cmd.Run()
	}
	err := apt("update")
	if err == nil {
		err = apt(append([]string{"install", "-y", "--no-install-recommends"}, missing...)...)
	}
	if err != nil {
		fmt.Fprintln(out, "not all packages of the tools are installed:", err)
	}
}

// bootstrap makes the root if it is not there.
func (p *programs) bootstrap(ctx context.Context, out *os.File) error {
	if _, err := os.Stat(filepath.Join(p.installed, "etc/debian_version")); err == nil {
		return nil
	}
	i := slices.IndexFunc(aptSources, func(name string) bool {
		fi, err := os.Stat(name)
		return err == nil && fi.Size() > 0
	})
	if i < 0 {
		return fmt.Errorf("this machine has no list of Debian's packages")
	}
	sources, err := os.Open(aptSources[i])
	if err != nil {
		return err
	}
	defer sources.Close()
	unfinished := p.installed + ".new" // an interrupted run leaves no half of a root
	if err := exec.Command("rm", "-rf", "--one-file-system", unfinished).Run(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.installed), 0o755); err != nil {
		return err
	}
	fmt.Fprintln(out, "making a root for the tools in", p.installed)
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--mode=root", "--variant=minbase", suite, unfinished, "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = sources, out, out
	if err := cmd.Run(); err != nil {
		return err
	}
	return os.Rename(unfinished, p.installed)
}

// missing are the packages that are not installed there.
func (p *programs) missing(packages []string) []string {
	text, _ := os.ReadFile(filepath.Join(p.installed, "var/lib/dpkg/status"))
	installed := map[string]bool{}
	for block := range strings.SplitSeq(string(text), "\n\n") {
		if strings.Contains(block, "\nStatus: install ok installed\n") {
			first, _, _ := strings.Cut(block, "\n")
			installed[strings.TrimPrefix(first, "Package: ")] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(packages), func(name string) bool { return installed[name] })
}

// enter shows the root at dir, with the kernel's filesystems, and with work at /matrix.
func (p *programs) enter(work string) error {
	type mount struct{ from, to, kind string }
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	list := []mount{
		{p.installed, "", ""},
		{"/dev", "dev", ""},
		{"proc", "proc", "proc"},
		{"tmpfs", "tmp", "tmpfs"},
		{work, "matrix", ""},
	}
	if goroot, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		list = append(list, mount{strings.TrimSpace(string(goroot)), "usr/local/go", ""})
	}
	for _, m := range list {
		to := filepath.Join(p.dir, m.to)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		flags := uintptr(0)
		if m.kind == "" {
			flags = unix.MS_BIND | unix.MS_REC
		}
		if err := unix.Mount(m.from, to, m.kind, flags, ""); err != nil {
			return &os.PathError{Op: "mount", Path: to, Err: err}
		}
	}
	return os.Chmod(filepath.Join(p.dir, "tmp"), 0o777|os.ModeSticky)
}

// has reports whether the root has a program of this name.
func (p *programs) has(name string) bool {
	for _, dir := range filepath.SplitList(toolPath) {
		if fi, err := os.Stat(filepath.Join(p.dir, dir, name)); err == nil && fi.Mode()&0o111 != 0 {
			return true
		}
		// A link that is absolute leads elsewhere from here.
		if target, err := os.Readlink(filepath.Join(p.dir, dir, name)); err == nil && filepath.IsAbs(target) {
			return true
		}
	}
	return false
}

// toolPath is where programs are looked for in the root.
const toolPath = "/usr/local/bin:/usr/local/go/bin:/usr/lib/postgresql/15/bin:/usr/bin:/usr/sbin:/bin:/sbin"

// asUser are the attributes of a process of this user; in is its root directory.
func asUser(user, in string) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Chroot: in, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if user == "nobody" {
		attr.Credential = &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
	}
	return attr
}

const nobodyID = 65534
