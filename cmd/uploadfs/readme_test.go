//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/mount"
)

const (
	readmeFile = "README.md"
	readmeHome = "/home/ada" // of the user who typed the README's session
	readmeMost = 150         // lines
)

// readDoc reads a page by its path from the top of the project.
func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	require.NoError(t, err)
	return string(text)
}

func TestReadmeIsShort(t *testing.T) {
	text := readDoc(t, readmeFile)
	require.LessOrEqual(t, strings.Count(text, "\n"), readmeMost)
	for _, command := range []string{"scripts/demo", "scripts/test"} {
		require.Contains(t, text, "\n    "+command+" ", "how to set up")
		require.FileExists(t, filepath.Join("../..", command))
	}
}

// typed is one command of a session, and what the session shows of its output.
type typed struct{ command, output string }

// session reads the one fenced block of a page whose lines begin with a prompt.
func session(t *testing.T, page string) []typed {
	t.Helper()
	_, block, found := strings.Cut(page, "\n```console\n")
	require.True(t, found, "the page has no session")
	block, rest, found := strings.Cut(block, "\n```\n")
	require.True(t, found, "the session has no end")
	require.NotContains(t, rest, "```console", "the page has two sessions")
	var all []typed
	for line := range strings.Lines(block + "\n") {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			all = append(all, typed{command: strings.TrimSpace(command)})
			continue
		}
		require.NotEmpty(t, all, "the session begins with output: %s", line)
		all[len(all)-1].output += line
	}
	require.NotEmpty(t, all)
	return all
}

// sessionMark stands before the exit status of each command.
const sessionMark = "exit status of the command above: "

// typeIn runs all commands in one shell, as a person types them, and returns what each
// printed. Its first command with another exit status than 0 fails the test.
func (b *box) typeIn(dir string, commands []typed) []string {
	b.Helper()
	var script strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&script, "%s\necho \"%s$?\"\n", c.command, sessionMark)
	}
	cmd := b.command("bash", "-c", "exec 2>&1\n"+script.String())
	cmd.Dir = dir
	r := b.do(cmd)
	outputs := strings.Split(r.stdout, sessionMark)
	require.Len(b, outputs, len(commands)+1, "%s", r.stdout)
	for i, c := range commands {
		status, next, _ := strings.Cut(outputs[i+1], "\n")
		require.Equal(b, "0", status, "%s\n%s", c.command, outputs[i])
		outputs[i+1] = next
	}
	return outputs[:len(commands)]
}

// What differs between two runs of a session: IDs, ages, free space, and calls that end
// while they are counted.
var (
	someID       = regexp.MustCompile(`\b(file-|part_|upload_)[a-z2-7]{26}\b`)
	someAge      = regexp.MustCompile(`, (now|\d+ seconds? ago)\n`)
	someFree     = regexp.MustCompile(`, [\d.]+ [KMGTP]?i?B free\n`)
	someInFlight = regexp.MustCompile(`in flight   \d+ of`)
)

// stable leaves out what differs between two runs.
func stable(output string) string {
	output = someID.ReplaceAllString(output, "${1}ID")
	output = someAge.ReplaceAllString(output, ", AGE\n")
	output = someFree.ReplaceAllString(output, ", SIZE free\n")
	return someInFlight.ReplaceAllString(output, "in flight   N of")
}

// Each command of the README's session is typed as it stands there, and prints what
// stands there.
func TestReadmeSession(t *testing.T) {
	commands := session(t, readDoc(t, readmeFile))
	eachUser(t, func(b *box) {
		require.NoError(b, os.Remove(b.point), "the session makes it")
		b.state = filepath.Join(b.dir, ".local", "state", "uploadfs", mount.Escape(b.point))
		if b.user.uid == 0 {
			b.state = filepath.Join("/var/lib/uploadfs", mount.Escape(b.point))
			b.Cleanup(func() { os.RemoveAll(b.state) })
		}
		b.cleanup()
		require.NoError(b, os.MkdirAll(b.path("checkout/bin"), 0o755))
		require.NoError(b, os.Symlink(binary, b.path("checkout/bin/uploadfs")))

		// The session is that of an ordinary user, and its paths are those of another home.
		ours := strings.NewReplacer(
			b.state, readmeHome+"/.local/state/uploadfs/"+mount.Escape(readmeHome+"/up"),
			b.dir, readmeHome,
			"write path  passthrough", "write path  writeback",
		)
		for i, output := range b.typeIn(b.path("checkout"), commands) {
			require.Equal(b, stable(commands[i].output), stable(ours.Replace(output)), commands[i].command)
		}
		require.False(b, b.mounted(), "the session ends its mount")
	})
}
