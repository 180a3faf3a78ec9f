package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// module is the path of this module.
const module = "uploadfs"

// goPackage is a package of this module.
type goPackage struct {
	path  string   // below the module, such as "uploader/backing"
	dir   string   // absolute
	tests []string // names of Test and Fuzz functions in the order of their files
	fuzz  []string // names of Fuzz functions
	bench []string // names of Benchmark functions
}

// binary is the name that go test -c gives the package's test binary.
func (p *goPackage) binary() string {
	base := path.Base(p.path)
	if p.path == "" {
		base = module
	}
	return base + ".test"
}

var functions = regexp.MustCompile(`(?m)^func ((Test|Fuzz|Benchmark)(?:[^a-z\s(][^\s(]*)?)\(`)

// listPackages finds the packages, and reads the names of their tests. It resolves
// no imports, so it downloads nothing.
func listPackages() ([]*goPackage, error) {
	cmd := exec.Command("go", "list", "-find", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var list []*goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		g := &goPackage{path: strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/"), dir: p.Dir}
		for _, name := range append(p.TestGoFiles, p.XTestGoFiles...) {
			source, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			g.read(source)
		}
		list = append(list, g)
	}
}

// read adds the functions of one file of tests.
func (p *goPackage) read(source []byte) {
	for _, m := range functions.FindAllSubmatch(source, -1) {
		name := string(m[1])
		switch string(m[2]) {
		case "Benchmark":
			p.bench = append(p.bench, name)
		case "Fuzz":
			p.fuzz = append(p.fuzz, name)
			p.tests = append(p.tests, name)
		default:
			if name != "TestMain" {
				p.tests = append(p.tests, name)
			}
		}
	}
}

// names are the tests that a run with these two patterns has; skip may be empty.
func (p *goPackage) names(only, skip string) []string {
	run := regexp.MustCompile(only)
	not := regexp.MustCompile(skip)
	var list []string
	for _, name := range p.tests {
		if run.MatchString(name) && (skip == "" || !not.MatchString(name)) {
			list = append(list, name)
		}
	}
	return list
}
