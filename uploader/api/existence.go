package api

import "context"

// FileChecker is implemented by a Backend that can ask for one File.
type FileChecker interface {
	// FileExists reports whether the API has the File. An error says that it cannot be
	// told. It may be called concurrently.
	FileExists(ctx context.Context, fileID string) (bool, error)
}

// FileCheckerOf returns the FileChecker that b is, or that it decorates, or nil, as
// [FileReaderOf] does.
func FileCheckerOf(b Backend) FileChecker { return beneath[FileChecker](b) }
