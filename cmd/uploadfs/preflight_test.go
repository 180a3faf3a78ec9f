package main

import (
	"io/fs"
	"testing"
	"time"

	"uploadfs/uploader/api"

	"github.com/stretchr/testify/require"
)

// fileInfo is a file that need not exist.
type fileInfo struct {
	size int64
	mode fs.FileMode
}

func (f fileInfo) Name() string       { return "f" }
func (f fileInfo) Size() int64        { return f.size }
func (f fileInfo) Mode() fs.FileMode  { return f.mode }
func (f fileInfo) ModTime() time.Time { return time.Time{} }
func (f fileInfo) IsDir() bool        { return f.mode.IsDir() }
func (f fileInfo) Sys() any           { return nil }

func TestPreflight(t *testing.T) {
	jsonl := func(purpose string) api.Spec { return api.Spec{Filename: "a.JSONL", Purpose: purpose} }
	for name, c := range map[string]struct {
		file    fileInfo
		spec    api.Spec
		refused string
		warned  []string
	}{
		"any file":          {file: fileInfo{size: 1}, spec: api.Spec{Filename: "a", Purpose: "user_data"}},
		"a directory":       {file: fileInfo{size: 4096, mode: fs.ModeDir}, refused: "is a directory"},
		"a FIFO":            {file: fileInfo{mode: fs.ModeNamedPipe}, refused: "no regular file"},
		"empty":             {file: fileInfo{}, refused: "is empty"},
		"8 GB":              {file: fileInfo{size: 8e9}, spec: jsonl("user_data")},
		"above 8 GB":        {file: fileInfo{size: 8e9 + 1}, spec: jsonl("user_data"), warned: []string{"8,000,000,001 bytes"}},
		"8 GiB":             {file: fileInfo{size: 8 << 30}, spec: jsonl("user_data"), warned: []string{"limit of 8 GB"}},
		"above 8 GiB":       {file: fileInfo{size: 8<<30 + 1}, spec: jsonl("user_data"), refused: "(8,589,934,593 bytes), and an Upload holds at most 8 GiB"},
		"a batch":           {file: fileInfo{size: 2e8}, spec: jsonl("batch")},
		"a large batch":     {file: fileInfo{size: 2e8 + 1}, spec: jsonl("batch"), warned: []string{"200,000,001 bytes"}},
		"a large fine-tune": {file: fileInfo{size: 2e9}, spec: jsonl("fine-tune")},
		"not .jsonl": {file: fileInfo{size: 1}, spec: api.Spec{Filename: "a.json", Purpose: "fine-tune"},
			warned: []string{"purpose fine-tune takes .jsonl files only, and this one will be called a.json"}},
		"neither": {file: fileInfo{size: 3e8}, spec: api.Spec{Filename: "a", Purpose: "batch"}, warned: []string{".jsonl", "200 MB"}},
	} {
		t.Run(name, func(t *testing.T) {
			warnings, err := preflight(c.file, "dir/f\n", c.spec)
			if c.refused != "" {
				require.ErrorContains(t, err, c.refused)
				require.ErrorContains(t, err, `dir/f\n`)
				return
			}
			require.NoError(t, err)
			require.Len(t, warnings, len(c.warned))
			for i, text := range c.warned {
				require.Contains(t, warnings[i], text)
			}
		})
	}
}

func TestPreflightSpec(t *testing.T) {
	good := api.Spec{Purpose: "vision", MimeType: "text/plain"}
	require.NoError(t, preflightSpec(good, ""))
	require.NoError(t, preflightSpec(good, "3600"))
	require.ErrorContains(t, preflightSpec(good, "60"), "3600 to 2592000")
	require.ErrorContains(t, preflightSpec(api.Spec{Purpose: "fun"}, ""), "use one of assistants")
	require.ErrorContains(t, preflightSpec(api.Spec{Purpose: "vision", MimeType: "text"}, ""), "text/jsonl")
}
