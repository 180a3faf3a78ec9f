package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// check makes a step of something that either fails or does not.
func check(do func(ctx context.Context, w *work) error) func(context.Context, *work) result {
	return func(ctx context.Context, w *work) result {
		if err := do(ctx, w); err != nil {
			fmt.Fprintln(w, err)
			return result{failed: 1, text: w.output()}
		}
		return result{passed: 1}
	}
}

func program(name string, args ...string) func(context.Context, *work) error {
	return func(ctx context.Context, w *work) error { return w.command(ctx, nil, name, args...) }
}

func formatted(ctx context.Context, w *work) error {
	out, err := exec.CommandContext(ctx, "gofmt", "-d", ".").CombinedOutput()
	fmt.Fprintf(w, "%s", out)
	if err == nil && len(out) > 0 {
		err = errors.New("gofmt -w mends it")
	}
	return err
}

func small(_ context.Context, w *work) error {
	var large error
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Size() > maxFile {
			large = errors.Join(large, fmt.Errorf("%s has %d bytes: split it", name, fi.Size()))
		}
		return err
	})
	return errors.Join(err, large)
}

// shell checks those files that say in their first line that they are scripts, and
// what they read in.
func shell(ctx context.Context, w *work) error {
	args := []string{"--external-sources"}
	for _, pattern := range []string{"scripts/*", ".ci/*", "deploy/package/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, name := range files {
			if fi, err := os.Stat(name); err != nil || !fi.Mode().IsRegular() {
				continue
			}
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			first, _, _ := bytes.Cut(text, []byte("\n"))
			if strings.HasSuffix(name, ".sh") || bytes.HasPrefix(first, []byte("#!")) && bytes.HasSuffix(first, []byte("sh")) {
				args = append(args, name)
			}
		}
	}
	return w.command(ctx, nil, "shellcheck", args...)
}

var (
	goLine   = regexp.MustCompile(`(?m)^go (\d+\.\d+)\.0$`)
	readmeGo = regexp.MustCompile(`\bGo (\d+\.\d+)\b`)
)

// modules checks that go.mod is tidy and asks for no patch version of Go: that
// would make every older toolchain download another one. The README names it too.
func modules(ctx context.Context, w *work) error {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		return err
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		return err
	}
	return errors.Join(w.command(ctx, nil, "go", "mod", "tidy", "-diff"), goVersion(mod, readme))
}

func goVersion(mod, readme []byte) error {
	m := goLine.FindSubmatch(mod)
	if m == nil {
		return errors.New("go.mod should have a line such as go 1.26.0, without a patch version")
	}
	named := readmeGo.FindAllSubmatch(readme, -1)
	if len(named) == 0 {
		return fmt.Errorf("the README should say that it needs Go %s", m[1])
	}
	for _, n := range named {
		if !bytes.Equal(n[1], m[1]) {
			return fmt.Errorf("the README names Go %s, and go.mod Go %s", n[1], m[1])
		}
	}
	return nil
}

// lint builds the linter unless there is one of this version, built by this Go: one
// that another Go built may not know this one's language.
func lint(ctx context.Context, w *work) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	linter := filepath.Join(bin, "staticcheck")
	built, _ := exec.CommandContext(ctx, "go", "version", "-m", linter).Output()
	if !bytes.Contains(built, []byte(runtime.Version())) || !bytes.Contains(built, []byte("honnef.co/go/tools\t"+staticcheckVersion)) {
		if err := w.command(ctx, []string{"GOBIN=" + bin}, "go", "install", "honnef.co/go/tools/cmd/staticcheck@"+staticcheckVersion); err != nil {
			return err
		}
	}
	return w.command(ctx, []string{raceFlags() + " -race"}, linter, "./...")
}

var toolCounts = regexp.MustCompile(`(?m)^(\d+) passed, (\d+) failed, (\d+) skipped$`)

// packaged builds the packages, installs one and mounts with it.
func packaged(ctx context.Context, w *work) result {
	if os.Geteuid() != 0 {
		fmt.Fprintln(w, "only root can give the package a root directory of its own")
		return result{skipped: 1}
	}
	return check(program("scripts/check-package"))(ctx, w)
}

// toolMatrix runs scripts/tools, and counts its cases.
func toolMatrix(ctx context.Context, w *work) result {
	if os.Geteuid() != 0 {
		fmt.Fprintln(w, "only root can give the tools a root directory of their own")
		return result{skipped: 1}
	}
	err := w.command(ctx, nil, "scripts/tools")
	r := countTools(w.output())
	if err != nil {
		fmt.Fprintln(w, err)
		r.failed = max(r.failed, 1)
		r.text = w.output()
	}
	return r
}

// countTools reads the last line of scripts/tools.
func countTools(output string) (r result) {
	if m := toolCounts.FindStringSubmatch(output); m != nil {
		for i, n := range []*int{&r.passed, &r.failed, &r.skipped} {
			*n, _ = strconv.Atoi(m[i+1])
		}
	}
	return r
}
