//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const serveSection = "## Use the API server alone\n"

// readServeSection is the part of the README about the server.
func readServeSection(t *testing.T) string {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), serveSection)
	require.True(t, found, "the README says nothing of the server")
	section, _, _ = strings.Cut(section, "\n## ")
	return section
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

// What the README says about the server is done as it stands there, only at another
// port.
func TestReadmeServe(t *testing.T) {
	b := self(t)
	require.NoError(t, os.Symlink(binary, b.path("uploadfs")))
	b.env = append(b.env, "PATH="+b.dir+":"+os.Getenv("PATH"), "XDG_STATE_HOME="+b.path("xdg"))
	var servers, calls []string
	for _, block := range codeBlocks(readServeSection(t)) {
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
	require.Regexp(t, `\nfile-\w+\n$`, r.stdout)
	s.stop(b)
	start(servers[1]).stop(b)
}
