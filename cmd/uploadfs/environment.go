package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"uploadfs/mount"
)

// envPrefix begins the variables that stand for flags.
const envPrefix = "UPLOADFS_"

// variableOf is the variable that stands for a flag, in each command that has it:
// UPLOADFS_PART_SIZE for --part-size. There is none for a key, which has its own, and
// none for --help and --version.
func variableOf(flag *pflag.Flag) (name string, ok bool) {
	switch flag.Name {
	case "help", "version", "api-key":
		return "", false
	}
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_")), true
}

// setBy is the annotation of a flag that a variable has set.
const setBy = "uploadfs-set-by"

// flagsFromEnvironment sets the flags that were not given from their variables. An
// empty variable is none. A flag that may be repeated takes values that commas separate.
func flagsFromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		variable, ok := variableOf(f)
		text := os.Getenv(variable)
		if !ok || f.Changed || text == "" {
			return
		}
		values := []string{text}
		var err error
		if f.Value.Type() == "stringArray" {
			values, err = splitQuoted(text)
		}
		for _, value := range values {
			err = errors.Join(err, flags.Set(f.Name, unquote(value)))
		}
		if err == nil {
			err = flags.SetAnnotation(f.Name, setBy, []string{variable})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", variable, err))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return &mount.UsageError{Err: err}
	}
	return nil
}

// otherVariables begin the names that stand for no flag: Kubernetes sets the first two
// for a service called uploadfs.
var otherVariables = []string{envPrefix + "PORT", envPrefix + "SERVICE_", envPrefix + "TEST_", mount.ReadyEnv, mount.KeyEnv}

// warnUnknown names the variables with our prefix that no command knows.
func warnUnknown(cmd *cobra.Command) {
	var known []string
	variables(cmd.Root(), &known)
	environ := os.Environ()
	slices.Sort(environ)
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		foreign := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) && !slices.ContainsFunc(otherVariables, foreign) {
			warn(cmd, "%s stands for no flag%s", name, suggestion(name, known))
		}
	}
}

// variables collects those of a command and of all below it.
func variables(cmd *cobra.Command, names *[]string) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if name, ok := variableOf(f); ok {
			*names = append(*names, name)
		}
	})
	for _, sub := range cmd.Commands() {
		variables(sub, names)
	}
}

// configure reads the environment for any command. A daemon's parent has already
// warned. The shell's completions are no place for warnings, nor is what a daemon calls.
func configure(cmd *cobra.Command, _ []string) error {
	if cmd.Hidden {
		return nil
	}
	if os.Getenv(mount.ReadyEnv) == "" {
		warnUnknown(cmd)
	}
	return flagsFromEnvironment(cmd.Flags())
}
