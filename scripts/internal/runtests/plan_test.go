package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func names(steps []*step) []string {
	var list []string
	for _, s := range steps {
		list = append(list, s.name)
	}
	return list
}

// planned is a plan for three packages.
func planned(t *testing.T, o options, root bool) []string {
	t.Helper()
	steps, err := plan(o, testPackages(), root)
	require.NoError(t, err)
	return names(steps)
}

func testPackages() []*goPackage {
	return []*goPackage{
		{path: "fusefs", tests: []string{"TestA"}, fuzz: []string{"FuzzA"}},
		{path: "mount", tests: []string{"TestA"}, bench: []string{"BenchmarkA"}},
		{path: "uploader", tests: []string{"TestA"}},
		{path: "uploader/untested"},
	}
}

func TestPlan(t *testing.T) {
	list := planned(t, options{}, true)
	require.Less(t, slices.Index(list, "modules"), slices.Index(list, "compile"), "what needs nothing compiled comes first")
	for _, name := range []string{"fusefs", "fusefs:nobody", "fusefs:writeback", "mount", "mount:nobody", "uploader", "vet", "staticcheck", "macos-types"} {
		require.Less(t, slices.Index(list, "compile"), slices.Index(list, name), name)
		require.Contains(t, list, name)
	}
	require.NotContains(t, list, "uploader/untested")
	require.NotContains(t, list, "macos")

	list = planned(t, options{all: true}, true)
	require.Contains(t, list, "macos")
	require.Contains(t, list, "fusefs:FuzzA")
	require.Contains(t, list, "mount:BenchmarkA")

	list = planned(t, options{}, false)
	require.Contains(t, list, "fusefs")
	require.NotContains(t, list, "fusefs:nobody")
	require.NotContains(t, list, "fusefs:writeback")
}

func TestPlanOfNames(t *testing.T) {
	for call, want := range map[string]string{
		"gofmt":               "gofmt",
		"vet gofmt":           "gofmt vet",
		"./fusefs":            "compile fusefs fusefs:nobody fusefs:writeback",
		"fusefs/":             "compile fusefs fusefs:nobody fusefs:writeback",
		"uploadfs/fusefs":     "compile fusefs fusefs:nobody fusefs:writeback",
		"fusefs:nobody mount": "compile fusefs:nobody mount mount:nobody",
		"macos":               "macos",
		"fusefs:FuzzA":        "fusefs:FuzzA",
	} {
		require.ElementsMatch(t, strings.Fields(want), planned(t, options{names: strings.Fields(call)}, true), call)
	}
	_, err := plan(options{names: []string{"absent"}}, testPackages(), true)
	require.ErrorContains(t, err, `"absent"`)
}

func TestAPackageThatHasMovedIsMissed(t *testing.T) {
	_, err := plan(options{}, testPackages()[1:], true)
	require.ErrorContains(t, err, "fusefs")
}

func TestGroups(t *testing.T) {
	a, b, c := &goPackage{path: "x/a"}, &goPackage{path: "y/a"}, &goPackage{path: "x/b"}
	require.Equal(t, [][]*goPackage{{a, c}, {b}}, groups([]*goPackage{a, b, c}))
}

func TestNamesOfTests(t *testing.T) {
	p := &goPackage{}
	p.read([]byte("package p\n\nfunc TestMain(m *testing.M) {}\nfunc TestOne(t *testing.T) {}\nfunc Tester() {}\n" +
		"func FuzzTwo(f *testing.F) {}\nfunc BenchmarkThree(b *testing.B) {}\nfunc helper(t *testing.T) {}\n\tfunc TestNot(t *testing.T) {}\n"))
	require.Equal(t, []string{"TestOne", "FuzzTwo"}, p.tests)
	require.Equal(t, []string{"FuzzTwo"}, p.fuzz)
	require.Equal(t, []string{"BenchmarkThree"}, p.bench)
	require.Equal(t, []string{"TestOne"}, p.names("One", ""))
	require.Equal(t, []string{"FuzzTwo"}, p.names(".", "^TestOne$"))
}

func TestGoVersion(t *testing.T) {
	for name, c := range map[string]struct{ mod, readme, want string }{
		"same":     {"go 1.26.0\n", "with Go 1.26 or newer", ""},
		"patch":    {"go 1.26.8\n", "with Go 1.26 or newer", "without a patch version"},
		"none":     {"module x\n", "with Go 1.26 or newer", "without a patch version"},
		"unnamed":  {"go 1.26.0\n", "with Go", "should say"},
		"another":  {"go 1.27.0\n", "with Go 1.26 or newer", "Go 1.26, and go.mod Go 1.27"},
		"two ways": {"go 1.26.0\n", "Go 1.26, or Go 1.25", "Go 1.25"},
	} {
		t.Run(name, func(t *testing.T) {
			err := goVersion([]byte("module x\n\n"+c.mod), []byte(c.readme))
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
		})
	}
}
