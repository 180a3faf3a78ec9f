package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"uploadfs/mount"
)

// A helper turns the arguments that mount(8) or umount(8) gives into those of a
// subcommand. Without arguments there is nothing to do.
type helper func(argv []string) (args []string, err error)

// Exit codes of mount(8). Its helpers share them.
const (
	helperUsage  = 1
	helperFailed = 32
)

func helperCode(code int) int {
	switch code {
	case mount.ExitDone:
		return 0
	case mount.ExitUsage:
		return helperUsage
	}
	return helperFailed
}

// helperOf returns the helper that this program is called as, nil for the command
// itself. The packages install the names as links to it. mount.fuse3(8) has a name
// for no helper: it calls `uploadfs NAME DIR -o OPTIONS`.
func helperOf(argv []string) helper {
	if len(argv) == 0 {
		return nil
	}
	switch filepath.Base(argv[0]) {
	case "mount.uploadfs", "mount.fuse.uploadfs":
		return mountHelper
	case "umount.fuse.uploadfs":
		return unmountHelper
	}
	if args := argv[1:]; len(args) == 4 && args[2] == "-o" && !isCommand(args[0]) {
		return mountHelper
	}
	return nil
}

// isCommand reports whether name is that of a subcommand, cobra's own among them.
func isCommand(name string) bool {
	root := newRoot()
	found, _, _ := root.Find([]string{name})
	return found != root || name == "help" || strings.HasPrefix(name, cobra.ShellCompRequestCmd)
}

// helperFlags are the flags that mount(8) and umount(8) give to their helpers.
type helperFlags struct {
	*pflag.FlagSet
	options  []string
	force    bool // for mount(8) this flag means: do everything but the mount itself
	lazy     bool
	readOnly bool
	sloppy   bool // ignore unknown options
}

func newHelperFlags(name string) *helperFlags {
	f := &helperFlags{FlagSet: pflag.NewFlagSet(name, pflag.ContinueOnError)}
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.StringArrayVarP(&f.options, "options", "o", nil, "")
	f.BoolVarP(&f.force, "force", "f", false, "")
	f.BoolVarP(&f.lazy, "lazy", "l", false, "")
	f.BoolVarP(&f.sloppy, "sloppy", "s", false, "")
	f.BoolP("no-mtab", "n", false, "")
	f.BoolP("verbose", "v", false, "")
	f.BoolVarP(&f.readOnly, "read-only", "r", false, "")
	f.StringP("type", "t", "", "")
	f.StringP("namespace", "N", "", "")
	return f
}

// parse parses argv, whose arguments are what wanted says.
func (f *helperFlags) parse(argv []string, wanted string) error {
	err := f.Parse(argv)
	switch {
	case err == nil && f.NArg() != len(strings.Fields(wanted)):
		err = fmt.Errorf("%d arguments given", f.NArg())
	case err == nil && f.Changed("namespace"):
		err = errors.New("-N is not supported: use nsenter --mount")
	}
	if err != nil {
		return &mount.UsageError{Err: fmt.Errorf("%w (usage: %s %s [-o OPTIONS])", err, f.Name(), wanted)}
	}
	return nil
}

// mountHelper turns NAME DIR -o OPTIONS into the arguments of `uploadfs mount`. NAME
// is free.
func mountHelper(argv []string) ([]string, error) {
	f := newHelperFlags("mount -t fuse.uploadfs")
	if err := f.parse(argv, "NAME DIR"); err != nil {
		return nil, err
	}
	if f.readOnly {
		f.options = append(f.options, "ro")
	}
	cmd := mountCommand()
	flags, err := mountOptions(cmd.Flags(), strings.Join(f.options, ","), f.sloppy)
	if err != nil {
		return nil, err
	}
	if f.force {
		return nil, cmd.ParseFlags(flags)
	}
	// mount(8) -a does not know its own mounts by their source, which is the state directory.
	if os.Getenv(mount.ReadyEnv) == "" && mount.Alive(f.Arg(1)) {
		return nil, nil
	}
	return append(append([]string{"mount"}, flags...), "--", f.Arg(1)), nil
}

// mountOptions turns the options of mount(8) into flags of `uploadfs mount`. Each
// flag is an option of the same name.
func mountOptions(known *pflag.FlagSet, text string, sloppy bool) ([]string, error) {
	options, err := splitQuoted(text)
	if err != nil {
		return nil, err
	}
	var args, kernel []string
	for _, o := range options {
		name, value, hasValue := strings.Cut(o, "=")
		flag := known.Lookup(name)
		switch {
		case name == "" || isGeneric(name):
		case name == "dev", name == "suid":
			// mount.fuse3(8) adds them to every mount of root, and `defaults` means them too.
		case name == "remount":
			return nil, errors.New("a mount cannot be changed: unmount, and mount again")
		case !hasValue && slices.Contains(mount.MountOptions, name):
			kernel = append(kernel, name)
		case flag == nil || name == "options" || name == "help":
			if !sloppy {
				return nil, &mount.UsageError{Err: fmt.Errorf("unknown mount option %q%s (see uploadfs mount --help)", name, suggestion(name, optionNames(known)))}
			}
		case hasValue:
			args = append(args, "--"+name+"="+unquote(value))
		case flag.NoOptDefVal == "":
			return nil, &mount.UsageError{Err: fmt.Errorf("mount option %s has no value: write %s=…", name, name)}
		default:
			args = append(args, "--"+name)
		}
	}
	if len(kernel) > 0 {
		args = append(args, "--options="+strings.Join(kernel, ","))
	}
	return args, nil
}

// optionNames are the options that a mount knows, apart from the generic ones.
func optionNames(known *pflag.FlagSet) []string {
	names := slices.Clone(mount.MountOptions)
	known.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// splitQuoted splits at commas. A comma between double quotes is part of a value, as in
// mount(8).
func splitQuoted(text string) ([]string, error) {
	if strings.Count(text, `"`)%2 != 0 {
		return nil, &mount.UsageError{Err: fmt.Errorf("a double quote is not closed in %q", text)}
	}
	quoted := false
	return strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	}), nil
}

// joinQuoted is the inverse of [splitQuoted].
func joinQuoted(values []string) string {
	var text []string
	for _, v := range values {
		if strings.Contains(v, ",") {
			v = `"` + v + `"`
		}
		text = append(text, v)
	}
	return strings.Join(text, ",")
}

// unquote removes quotes around a whole value.
func unquote(value string) string {
	if inner, ok := strings.CutPrefix(value, `"`); ok && strings.HasSuffix(inner, `"`) {
		return strings.TrimSuffix(inner, `"`)
	}
	return value
}

// genericOptions are those of mount(8) and fstab(5) that change nothing here: they
// are for mount(8) itself, or FUSE has no use for them.
var genericOptions = strings.Fields(`
	_netdev async atime auto comment default_permissions defaults diratime dirsync group
	iversion lazytime loud mand noatime noauto nodiratime nofail nogroup noiversion
	nolazytime nomand noowner norelatime nostrictatime nouser nousers owner relatime
	silent strictatime sync uhelper user users`)

func isGeneric(name string) bool {
	return slices.Contains(genericOptions, name) || strings.HasPrefix(strings.ToLower(name), "x-")
}

// unmountHelper turns DIR into the arguments of `uploadfs unmount`.
func unmountHelper(argv []string) ([]string, error) {
	f := newHelperFlags("umount")
	if err := f.parse(argv, "DIR"); err != nil {
		return nil, err
	}
	args := []string{"unmount"}
	if f.lazy {
		args = append(args, "--lazy")
	}
	if f.force {
		args = append(args, "--force")
	}
	return append(args, "--", f.Arg(0)), nil
}
