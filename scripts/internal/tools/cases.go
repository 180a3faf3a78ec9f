package main

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// toolCase is a small script that is run in an empty directory. Its parts are run by
// bash with set -e. They find files in $IN and an empty directory in $OUT, both outside
// of the mount, and the files of $IN below $URL.
type toolCase struct {
	name     string
	packages []string // of Debian
	needs    []string // programs
	users    []string // "root" or "nobody" if it can run as one of them only

	before string // what has to be there; the API refuses nothing yet
	do     string
	check  string // whether the result can be used

	varies   []string // globs of paths whose content is another one at each run
	also     []string // globs of the names that Files have besides those of the files
	because  string   // why there are such Files
	mime     []string // globs of paths whose mime type is changed after they were sent
	files    [2]int   // how many Files do makes; {0, 0}: one for each file that it leaves
	refused  string   // the exit status of do when the API refuses everything
	excluded bool     // it leaves files that are never sent
	holds    bool     // a file is still held when it has ended
}

// section is a group of cases.
type section struct {
	title string
	cases []*toolCase
}

//go:embed cases/*.txt
var caseFiles embed.FS

// allCases are the cases of all files, in the order of the files' names.
func allCases() ([]*section, error) {
	names, err := fs.Glob(caseFiles, "cases/*.txt")
	if err != nil {
		return nil, err
	}
	var list []*section
	known := map[string]bool{}
	for _, name := range names {
		text, err := caseFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		s, err := parseCases(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, c := range s.cases {
			if known[c.name] {
				return nil, fmt.Errorf("%s: there are two cases %q", name, c.name)
			}
			known[c.name] = true
		}
		list = append(list, s)
	}
	return list, nil
}

// parseCases reads a file: its title, then the cases. "# " begins the title, "## " the
// name of a case, "// " a remark. All other lines are "key: value"; lines that begin
// with a tab continue the value.
func parseCases(text string) (*section, error) {
	s := &section{}
	var c *toolCase
	var key string
	var value []string
	number := 0
	set := func() error {
		if key == "" {
			return nil
		}
		err := c.set(key, strings.Join(value, "\n"))
		key = ""
		return err
	}
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\n")
		if rest, ok := strings.CutPrefix(line, "\t"); ok && key != "" {
			value = append(value, rest)
			continue
		}
		err := set()
		switch title, isCase := strings.CutPrefix(line, "## "); {
		case err != nil:
		case line == "" || strings.HasPrefix(line, "// "):
		case isCase:
			c = &toolCase{name: title}
			s.cases = append(s.cases, c)
		case strings.HasPrefix(line, "# "):
			s.title = line[2:]
		case c == nil:
			err = fmt.Errorf("%q belongs to no case", line)
		default:
			var first string
			var ok bool
			if key, first, ok = strings.Cut(line, ":"); !ok {
				err = fmt.Errorf("%q is no key with a value", line)
			}
			value = []string{strings.TrimSpace(first)}
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if err := set(); err != nil {
		return nil, err
	}
	for _, c := range s.cases {
		if err := c.complete(); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if s.title == "" {
		return nil, fmt.Errorf("there is no title")
	}
	return s, nil
}

// set sets the field of this key.
func (c *toolCase) set(key, value string) (err error) {
	value = strings.TrimSpace(value)
	switch key {
	case "packages":
		c.packages = strings.Fields(value)
	case "needs":
		c.needs = strings.Fields(value)
	case "users":
		c.users = strings.Fields(value)
	case "before":
		c.before = value
	case "do":
		c.do = value
	case "check":
		c.check = value
	case "varies":
		c.varies = strings.Fields(value)
	case "also":
		var names string
		names, c.because, _ = strings.Cut(value, " because ")
		c.also = strings.Fields(names)
	case "mime":
		globs, _, _ := strings.Cut(value, " because ")
		c.mime = strings.Fields(globs)
	case "files":
		low, high, ok := strings.Cut(value, "-")
		if !ok {
			high = low
		}
		if c.files[0], err = strconv.Atoi(low); err == nil {
			c.files[1], err = strconv.Atoi(high)
		}
	case "refused":
		c.refused = value
	case "held":
		c.holds = value == "yes"
	case "excluded":
		c.excluded = value == "yes"
	default:
		return fmt.Errorf("there is no key %q", key)
	}
	return err
}

// complete checks that a case says all that it has to. Without needs, its program is the
// first word of do.
func (c *toolCase) complete() error {
	switch {
	case c.do == "":
		return fmt.Errorf("it does nothing")
	case len(c.also) > 0 && c.because == "":
		return fmt.Errorf(`"also" gives no reason: write "NAMES because …"`)
	}
	for _, pattern := range slices.Concat(c.also, c.varies, c.mime) {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("%s: %w", pattern, err)
		}
	}
	if len(c.needs) == 0 {
		c.needs = strings.Fields(c.do)[:1]
	}
	return nil
}

// runsAs reports whether the case can be run by this user.
func (c *toolCase) runsAs(user string) bool {
	return len(c.users) == 0 || slices.Contains(c.users, user)
}

// matches reports whether one of the globs is of this path, or of its base name. A glob
// that ends with a slash is of all below that directory.
func matches(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool {
		if strings.HasSuffix(glob, "/") {
			return strings.HasPrefix(name, glob) || name+"/" == glob
		}
		whole, _ := path.Match(glob, name)
		base, _ := path.Match(glob, path.Base(name))
		return whole || base
	})
}

// packagesOf are the packages that all cases need, sorted.
func packagesOf(sections []*section) []string {
	var list []string
	for _, s := range sections {
		for _, c := range s.cases {
			list = append(list, c.packages...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
