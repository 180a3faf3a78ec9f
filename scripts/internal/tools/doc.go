package main

import (
	"fmt"
	"os"
	"strings"
)

// The table stands between these two lines of the document.
const (
	docBegins = "<!-- scripts/tools makes what follows -->"
	docEnds   = "<!-- scripts/tools has made what precedes -->"
)

// writeDoc puts the table of all cases into the document, or checks that it is there.
func writeDoc(name string, check bool, sections []*section) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), docBegins+"\n")
	_, after, ends := strings.Cut(rest, docEnds)
	if !ok || !ends {
		return fmt.Errorf("%s has no lines %q and %q", name, docBegins, docEnds)
	}
	made := before + docBegins + "\n" + table(sections) + docEnds + after
	switch {
	case made == string(text):
		return nil
	case check:
		return fmt.Errorf("%s is not what the cases say: run scripts/tools -doc %s", name, name)
	}
	return os.WriteFile(name, []byte(made), 0o644)
}

// table is one row for each case.
func table(sections []*section) string {
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "\n### %s\n\n| tool | Files | names | exit status when refused |\n|---|---|---|---|\n", s.title)
		for _, c := range s.cases {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.name, c.docFiles(), c.docNames(), c.docRefused())
		}
	}
	b.WriteString("\n")
	return b.String()
}

func (c *toolCase) docFiles() string {
	if c.files == [2]int{} {
		return "one each"
	}
	return span(c.files)
}

func (c *toolCase) docNames() string {
	text := "final"
	if len(c.also) > 0 {
		text = "also `" + strings.Join(c.also, "`, `") + "`: " + c.because
	}
	if c.holds {
		text += "; held until `--hold-for`"
	}
	return text
}

func (c *toolCase) docRefused() string {
	if c.refused == "0" {
		return "**0**"
	}
	return c.refused
}

func span(n [2]int) string {
	if n[0] == n[1] {
		return fmt.Sprint(n[0])
	}
	return fmt.Sprintf("%d to %d", n[0], n[1])
}
