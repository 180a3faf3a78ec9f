package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseCases(t *testing.T) {
	s, err := parseCases("# Title\n\n// a remark\n## one\npackages: a b\nbefore: x\ndo: first\n\tsecond\n\t\tthird\n" +
		"also: a b.* because of it\nfiles: 2-5\nrefused: 3\nexcluded: yes\nheld: yes\nusers: nobody\n\n## two\nneeds: y\ndo: f=1 y\n")
	require.NoError(t, err)
	require.Equal(t, &section{title: "Title", cases: []*toolCase{
		{name: "one", packages: []string{"a", "b"}, needs: []string{"first"}, users: []string{"nobody"}, before: "x",
			do: "first\nsecond\n\tthird", also: []string{"a", "b.*"}, because: "of it", files: [2]int{2, 5}, refused: "3",
			excluded: true, holds: true},
		{name: "two", needs: []string{"y"}, do: "f=1 y"},
	}}, s)

	for text, want := range map[string]string{
		"## a\ndo: x\n":                       "no title",
		"# t\ndo: x\n":                        "belongs to no case",
		"# t\n## a\nrefused: 0\n":             "does nothing",
		"# t\n## a\nsomething\n":              "no key with a value",
		"# t\n## a\ncolour: blue\n":           `no key "colour"`,
		"# t\n## a\ndo: x\nalso: *.tmp\n":     "gives no reason",
		"# t\n## a\ndo: x\nvaries: [a\n":      "syntax error in pattern",
		"# t\n## a\nfiles: many\n## b\ndo: x": "line 4",
	} {
		_, err := parseCases(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestMatches(t *testing.T) {
	for name, want := range map[string]bool{"a.txt": true, "d/a.txt": true, "r": true, "r/x/y": true, "rx": false, "e/f": true, "e/g/f": false} {
		require.Equal(t, want, matches([]string{"*.txt", "r/", "e/f"}, name), name)
	}
}

// TestCases reads all cases, and makes their table.
func TestCases(t *testing.T) {
	sections, err := allCases()
	require.NoError(t, err)
	for _, s := range sections {
		for _, c := range s.cases {
			require.NotEmpty(t, c.refused, "%s has no exit status for an API that refuses", c.name)
		}
	}
	name := filepath.Join(t.TempDir(), "tools.md")
	require.NoError(t, os.WriteFile(name, []byte("before\n"+docBegins+"\nold\n"+docEnds+"\nafter\n"), 0o644))
	require.ErrorContains(t, writeDoc(name, true, sections), "is not what the cases say")
	require.NoError(t, writeDoc(name, false, sections))
	require.NoError(t, writeDoc(name, true, sections))
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "before\n"+docBegins+"\n"+table(sections)+docEnds+"\nafter\n", string(text))
	require.NotContains(t, table(sections), "``")
}

func TestTable(t *testing.T) {
	require.Equal(t, `
### Editors

| tool | Files | names | exit status when refused |
|---|---|---|---|
| ed | one each | final | 2 |
| sh | 1 to 3 | also `+"`x*`"+`: it does so; held until `+"`--hold-for`"+` | **0** |

`, table([]*section{{title: "Editors", cases: []*toolCase{
		{name: "ed", refused: "2"},
		{name: "sh", refused: "0", files: [2]int{1, 3}, also: []string{"x*"}, because: "it does so", holds: true},
	}}}))
}
