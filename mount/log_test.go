package mount

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestANameCannotForgeALogLine(t *testing.T) {
	const name = "a\ntime=now level=ERROR msg=forged\x1b[2J"
	for _, format := range LogFormats {
		var out bytes.Buffer
		newLogger(&out, &Config{LogFormat: format}).Info("completed", "path", name, "paths", []string{name}, "error", fmt.Errorf("at %s", name))
		require.Equal(t, 1, strings.Count(out.String(), "\n"), format)
		require.NotContains(t, out.String(), "\x1b")
		if format == "json" {
			var line struct{ Path string }
			require.NoError(t, json.Unmarshal(out.Bytes(), &line))
			require.Equal(t, name, line.Path)
		}
	}
}

func TestLogLevel(t *testing.T) {
	for in, want := range map[string]slog.Level{"debug": slog.LevelDebug, "INFO": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		l, err := ParseLogLevel(in)
		require.NoError(t, err)
		require.Equal(t, want, l)
	}
	var out bytes.Buffer
	newLogger(&out, &Config{LogLevel: slog.LevelWarn}).Info("quiet")
	require.Empty(t, out.String())
}

func TestRotation(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	opened := 0
	r, err := openRotating(name, 100, 3, func(*os.File) { opened++ })
	require.NoError(t, err)
	line := func(i int) string { return fmt.Sprintf("%039d\n", i) } // two of 40 bytes fit
	for i := range 12 {
		n, err := r.Write([]byte(line(i)))
		require.NoError(t, err)
		require.Equal(t, 40, n)
	}
	require.NoError(t, r.Close())
	require.Equal(t, 6, opened)
	for file, first := range map[string]int{"log": 10, "log.1": 8, "log.2": 6, "log.3": 4} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(name), file))
		require.NoError(t, err)
		require.Equal(t, line(first)+line(first+1), string(b), file)
	}
	files, err := filepath.Glob(name + "*")
	require.NoError(t, err)
	require.Len(t, files, 4)

	// What is there counts, and one line above the limit is still one line.
	r, err = openRotating(name, 100, 3, nil)
	require.NoError(t, err)
	_, err = r.Write([]byte(strings.Repeat("x", 150)))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Len(t, b, 150)
	fi, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
}

func TestRotationFailsWithoutLosingLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.Mkdir(name+".new", 0o700)) // nothing can be opened there
	r, err := openRotating(name, 10, 3, nil)
	require.NoError(t, err)
	for range 3 {
		n, _ := r.Write([]byte("12345678\n"))
		require.Equal(t, 9, n)
	}
	require.NoError(t, r.Close())
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("12345678\n", 3), string(b))
}

func TestConcurrentLinesStayWhole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	r, err := openRotating(name, 1000, 100, nil)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				r.Write([]byte("twenty bytes a line\n"))
			}
		})
	}
	wg.Wait()
	require.NoError(t, r.Close())
	files, err := filepath.Glob(name + "*")
	require.NoError(t, err)
	lines := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), 1000)
		lines += strings.Count(string(b), "twenty bytes a line\n")
	}
	require.Equal(t, 400, lines)
}
