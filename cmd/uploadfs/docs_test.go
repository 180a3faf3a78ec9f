//go:build linux

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

const (
	configurationPage = "docs/configuration.md"
	messagesPage      = "docs/messages.md"
	serverPage        = "docs/server.md"
	statesPage        = "docs/states.md"
	statusPage        = "docs/status.md"
)

// pages are the README, the pages below docs, and the two other pages at the top.
func pages(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	names := []string{readmeFile, "ARCHITECTURE.md", "CHANGELOG.md"}
	for _, p := range paths {
		names = append(names, "docs/"+filepath.Base(p))
	}
	return names
}

// rows returns the cells of all table rows of a page, the heads among them.
func rows(page string) [][]string {
	var all [][]string
	for line := range strings.Lines(page) {
		line, isRow := strings.CutPrefix(strings.TrimSpace(line), "|")
		if isRow && !strings.HasPrefix(line, "---") {
			cells := strings.Split(strings.TrimSuffix(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			all = append(all, cells)
		}
	}
	return all
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// spans are the code spans of a text.
func spans(text string) []string {
	var all []string
	for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// firstSpans are the code spans in the first cells of a page's tables: what its rows are about.
func firstSpans(page string) []string {
	var all []string
	for _, cells := range rows(page) {
		all = append(all, spans(cells[0])...)
	}
	return all
}

// listedAttrs are the names, without prefix, of the attributes that the uploader lists.
// The list is not exported, so it is read from the source.
func listedAttrs(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../uploader/attrs.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	values := map[string][]ast.Expr{} // of constants and variables, by name
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Names) == 1 {
			values[spec.Names[0].Name] = spec.Values
		}
		return true
	})
	literal := func(e ast.Expr) string {
		if name, ok := e.(*ast.Ident); ok && len(values[name.Name]) == 1 {
			e = values[name.Name][0]
		}
		lit, ok := e.(*ast.BasicLit)
		require.True(t, ok, "%v is no string", e)
		value, err := strconv.Unquote(lit.Value)
		require.NoError(t, err)
		return value
	}
	require.Len(t, values["fileAttrs"], 1, "uploader/attrs.go has no list of attributes")
	var names []string
	for _, e := range values["fileAttrs"][0].(*ast.CompositeLit).Elts {
		names = append(names, literal(e))
	}
	require.NotEmpty(t, names)
	return names
}

// The README's table has each attribute that the program lists, the three that it
// knows but does not list, and no other.
func TestReadmeNamesEveryAttribute(t *testing.T) {
	_, table, found := strings.Cut(readDoc(t, readmeFile), "\n## Extended attributes\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	var named, writable []string
	for _, cells := range rows(table) {
		name := spans(cells[0])
		if len(name) == 0 {
			continue // the head
		}
		require.Len(t, name, 1)
		named = append(named, name[0])
		if strings.HasPrefix(cells[1], "**writable**") {
			writable = append(writable, name[0])
		}
	}
	listed := listedAttrs(t)
	require.ElementsMatch(t, append(slices.Clone(listed), "part.N", "superseded.N", uploader.AttrInfo), named)
	listed = slices.DeleteFunc(listed, func(name string) bool { return !uploader.WritableAttr(name, false) })
	require.ElementsMatch(t, listed, writable)
}

// jsonNames are the names that a struct has in JSON.
func jsonNames(typ reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(typ) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// The JSON of status is for programs, so each name of it is documented.
func TestDocsNameTheJSON(t *testing.T) {
	known := firstSpans(readDoc(t, statusPage))
	for _, typ := range []reflect.Type{reflect.TypeFor[mount.Report](), reflect.TypeFor[uploader.Status]()} {
		require.Subset(t, known, jsonNames(typ))
	}
}

func TestDocsNameEveryState(t *testing.T) {
	named := firstSpans(readDoc(t, statesPage))
	for _, s := range state.All {
		require.Contains(t, named, string(s))
	}
	require.Len(t, named, len(state.All))
}

var helpFlag = regexp.MustCompile(`(?m)^ +(?:-\w, )?--([\w.-]+)`)

// flags are the flags of a command as its --help prints them.
func flags(b *box, command ...string) []string {
	b.Helper()
	var names []string
	for _, m := range helpFlag.FindAllStringSubmatch(b.ok(append(command, "--help")...), -1) {
		names = append(names, "--"+m[1])
	}
	require.Contains(b, names, "--help")
	return names
}

// Each flag of the commands with a page of their own has a row on it.
func TestDocsNameEveryFlag(t *testing.T) {
	b := self(t)
	for command, page := range map[string]string{"mount": configurationPage, "serve": serverPage, "status": statusPage} {
		var named []string
		for _, span := range firstSpans(readDoc(t, page)) {
			name, _, _ := strings.Cut(span, " ")
			named = append(named, name)
		}
		for _, flag := range flags(b, command) {
			if flag != "--help" {
				require.Contains(t, named, flag, "%s says nothing of a flag of %s", page, command)
			}
		}
	}
}

var docFlag = regexp.MustCompile(`(?:^| )(--[a-z][\w.-]+)`)

// No page names a flag that no command has. Another program's flag stands behind the
// program's name.
func TestDocsNameNoOtherFlag(t *testing.T) {
	b := self(t)
	var known []string
	for _, command := range [][]string{
		{}, {"mount"}, {"unmount"}, {"status"}, {"info"}, {"wait"}, {"retry"}, {"cancel"}, {"put"}, {"serve"}, {"version"}, {"doctor"}, {"set"}, {"pause"}, {"resume"}, {"config", "show"},
		{"uploads", "create"}, {"uploads", "complete"}, {"uploads", "cancel"}, {"uploads:parts", "create"},
	} {
		known = append(known, flags(b, command...)...)
	}
	for _, page := range pages(t) {
		text := readDoc(t, page)
		for _, c := range append(spans(text), codeBlocks(text)...) {
			for line := range strings.Lines(c) {
				if !strings.HasPrefix(line, "--") && !strings.HasPrefix(line, "uploadfs ") {
					continue
				}
				for _, m := range docFlag.FindAllStringSubmatch(line, -1) {
					require.Contains(t, known, m[1], "%s: %s", page, line)
				}
			}
		}
	}
}

// programTexts are the string literals of the program, in one text.
func programTexts(t *testing.T) string {
	t.Helper()
	var texts strings.Builder
	for _, dir := range []string{"cmd", "mount", "fusefs", "uploader"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						texts.WriteString(text + "\n")
					}
				}
				return true
			})
			return err
		})
		require.NoError(t, err)
	}
	return texts.String()
}

// otherPrograms are the words that a program puts before the system's.
var otherPrograms = regexp.MustCompile(`^(cp: failed to close|setfattr:) `)

// Each message of the page is one that the program or the system has. An ellipsis on
// the page stands for what a message fills in.
func TestDocsMessages(t *testing.T) {
	known := programTexts(t)
	for errno := range syscall.Errno(133) { // those of Linux
		known += errno.Error() + "\n"
	}
	known = strings.ToLower(known) // the C library writes its texts with a capital
	messages := firstSpans(readDoc(t, messagesPage))
	require.NotEmpty(t, messages)
	for _, message := range messages {
		text := otherPrograms.ReplaceAllString(message, "")
		for fragment := range strings.SplitSeq(text, "…") {
			fragment = strings.ToLower(strings.Trim(fragment, ": "))
			require.True(t, strings.Contains(known, fragment), "no code says %q of %q", fragment, message)
		}
	}
}

var (
	docLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docHeading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the names by which a link reaches the headings of a page.
func anchors(page string) []string {
	var all []string
	for _, m := range docHeading.FindAllStringSubmatch(page, -1) {
		slug := notInSlug.ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(slug, " ", "-"))
	}
	return all
}

// Each link within the project leads to a file, and to a heading where it names one.
func TestDocsLinks(t *testing.T) {
	reached := map[string]bool{}
	for _, page := range pages(t) {
		for _, m := range docLink.FindAllStringSubmatch(readDoc(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			name, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if name != "" {
				target = filepath.Join(filepath.Dir(page), name)
			}
			require.FileExists(t, filepath.Join("../..", target), "%s links to %s", page, m[1])
			if anchor != "" {
				require.Contains(t, anchors(readDoc(t, target)), anchor, "%s links to %s", page, m[1])
			}
			if page == readmeFile {
				reached[target] = true
			}
		}
	}
	for _, page := range pages(t) {
		require.True(t, page == readmeFile || reached[page], "the README does not lead to %s", page)
	}
}

// codeBlocks are the indented blocks of a text. Empty lines do not end one.
func codeBlocks(text string) []string {
	var blocks []string
	var block strings.Builder
	for line := range strings.Lines(text + "end\n") {
		code, isCode := strings.CutPrefix(line, "    ")
		switch {
		case isCode:
			block.WriteString(code)
		case strings.TrimSpace(line) == "":
			block.WriteString(line)
		default:
			if s := strings.TrimSpace(block.String()); s != "" {
				blocks = append(blocks, s)
			}
			block.Reset()
		}
	}
	return blocks
}

// The test runs each command of the server's page as it stands there, but for the port.
func TestDocsServe(t *testing.T) {
	b := self(t)
	require.NoError(t, os.Symlink(binary, b.path("uploadfs")))
	b.env = append(b.env, "PATH="+b.dir+":"+os.Getenv("PATH"), "XDG_STATE_HOME="+b.path("xdg"))
	var servers, calls []string
	for _, block := range codeBlocks(readDoc(t, serverPage)) {
		if strings.HasPrefix(block, "uploadfs serve ") {
			servers = append(servers, block)
		} else {
			calls = append(calls, block)
		}
	}
	require.Len(t, servers, 2)
	start := func(line string) *served {
		return b.awaitURL(b.command("bash", "-c", "exec "+line+" --listen 127.0.0.1:0"))
	}
	s := start(servers[0])
	require.DirExists(t, b.path("files"))
	script := strings.Join(calls, "\n")
	require.Contains(t, script, "http://127.0.0.1:8080/v1")
	script = strings.ReplaceAll(script, "http://127.0.0.1:8080/v1", s.url)
	// Root's default is not below its home.
	script = strings.ReplaceAll(script, "uploadfs put ", "uploadfs put --state-dir "+b.state+" ")
	r := b.do(b.command("bash", "-euo", "pipefail", "-c", script))
	require.Zero(t, r.code, "%s%s", r.stdout, r.stderr)
	content, err := os.ReadFile(filepath.Join(b.dir, "train.jsonl"))
	require.NoError(t, err)
	require.Contains(t, r.stdout, string(content))
	require.Contains(t, r.stdout, `"filename": "train.jsonl"`)
	require.Contains(t, r.stdout, `"status":"completed"`)
	require.Regexp(t, `\nfile-\w+\nfile-\w+\nfile-\w+  reports/train.jsonl\n$`, r.stdout, "three puts")
	s.stop(b)
	start(servers[1]).stop(b)
}
