package fusefs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tool is a program that runs in an empty directory of a mount. Its arguments are a
// file of two parts ($1), a directory of small files ($2) and an empty directory
// ($3), none of them in the mount.
type tool struct {
	name string
	do   string // bash, with set -e

	// uploads is how many Uploads it makes: one for each close that left another
	// content. 0 stands for one for each file with content.
	uploads int

	// together is set where several programs write one file: closes that arrive
	// during a commit of their content share it.
	together bool

	// later is set for tools that end with a rename. A rename does not wait, so
	// the File may appear after the tool has ended.
	later bool

	// sent are the names that were sent, by the name that the file has now, where they
	// differ: a renamed file keeps its File.
	sent map[string]string
}

// toolCommands are the commands that the tools need beyond those of every system. A
// missing one fails the test: a table that shrinks by itself proves nothing.
var toolCommands = []string{"curl", "git", "perl", "python3", "rsync", "setfattr", "sqlite3", "unzip", "vim", "xz", "zip"}

// runTools runs each tool, and compares the API with the mount.
func runTools(t *testing.T, o stackOptions, tools []tool) {
	for _, command := range toolCommands {
		_, err := exec.LookPath(command)
		require.NoError(t, err, "install it: scripts/test does")
	}
	s := newStack(t, o)
	src, _ := source(t, 9*partSize/8+123)
	small := smallFiles(t)
	for i, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			s := s.in(t)
			before := s.API.Stats()
			dir := fmt.Sprintf("%02d", i)
			s.run("set -e; mkdir "+dir+"; cd "+dir+"\n"+tool.do, src, small, t.TempDir())
			inodes := s.allCompleted(dir, tool.later, tool.sent)
			want := int64(tool.uploads)
			if want == 0 {
				want = int64(inodes)
			}
			after := s.API.Stats()
			files, uploads := after.FilesCreated-before.FilesCreated, after.UploadsCreated-before.UploadsCreated
			if tool.together {
				require.Positive(t, files, "Files")
				require.LessOrEqual(t, files, want, "Files")
				require.LessOrEqual(t, uploads, want, "Uploads")
			} else {
				require.Equal(t, want, files, "Files")
				require.Equal(t, want, uploads, "Uploads")
			}
			require.Zero(t, s.pending(), "an Upload that is neither completed nor cancelled")
		})
	}
}

// in returns the stack for a subtest.
func (s *stack) in(t *testing.T) *stack {
	sub := *s
	sub.t = t
	return &sub
}

// allCompleted checks that the API has every file below dir as the mount has it, with
// its name and mime type; sent are the names of those that have another one now. It
// returns the number of files with content; one with several names counts once.
func (s *stack) allCompleted(dir string, later bool, sent map[string]string) int {
	s.t.Helper()
	inodes := map[string][]string{} // names
	list := s.run(`find "$1" -type f -printf '%i %s %p\n'`, dir)
	for line := range strings.Lines(list) {
		field := strings.SplitN(strings.TrimSpace(line), " ", 3)
		name := field[2]
		if field[1] == "0" {
			require.Equal(s.t, "empty", s.attr(name, "state"), name)
			continue
		}
		if later {
			s.eventually(name, "completed")
		}
		s.sameAsFile(name)
		inodes[field[0]] = append(inodes[field[0]], name)
	}
	for _, names := range inodes {
		s.sentAs(names, sent[strings.TrimPrefix(names[0], dir+"/")])
	}
	return len(inodes)
}

// sentAs checks the name and the mime type that the API has of a file with these
// names: one of them, or the name sent if it is not empty.
func (s *stack) sentAs(names []string, sent string) {
	s.t.Helper()
	f := s.file(s.attr(names[0], "file_id"))
	require.Equal(s.t, f.Filename, s.attr(names[0], "filename"))
	want, mimeTypes := []string{sent}, map[string]string{} // by extension
	for _, name := range names {
		if sent == "" {
			want = append(want, filepath.Base(name))
		}
		mimeTypes[filepath.Ext(name)] = s.attr(name, "mime_type")
	}
	require.Contains(s.t, want, f.Filename, "the name of the File of %s", names)
	require.NotEmpty(s.t, f.Filename)
	if mimeType, known := mimeTypes[filepath.Ext(f.Filename)]; known {
		require.Equal(s.t, mimeType, f.MimeType, "the mime type of the File of %s", names)
	}
}

// smallFiles makes a directory with a few small files, an empty one among them.
func smallFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for i, name := range []string{"a.txt", "b.jsonl", "sub/c", "empty"} {
		content := strings.Repeat(fmt.Sprintf("{\"line\": \"of %s\"}\n", name), 1000*(i+1))
		if name == "empty" {
			content = ""
		}
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
		old := time.Unix(1_700_000_000, 123_000_000) // a tool that keeps times has one to keep
		require.NoError(t, os.Chtimes(name, old, old))
	}
	return dir
}
