package api

import (
	"context"
	"io"
)

// FileReader is implemented by a Backend whose API gives the content of Files back.
type FileReader interface {
	// ReadFile writes the content of the File to w. A refusal says that the API
	// gives it to no client, as for some purposes. After an error w has a part of
	// the content. It makes one attempt, and may be called concurrently.
	ReadFile(ctx context.Context, fileID string, w io.Writer) error
}

// FileReaderOf returns the FileReader that b is, or that it decorates, or nil. A
// decorator says what it decorates by a method Unwrap.
func FileReaderOf(b Backend) FileReader {
	for b != nil {
		if r, ok := b.(FileReader); ok {
			return r
		}
		d, ok := b.(interface{ Unwrap() Backend })
		if !ok {
			return nil
		}
		b = d.Unwrap()
	}
	return nil
}
