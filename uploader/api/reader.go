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
func FileReaderOf(b Backend) FileReader { return beneath[FileReader](b) }

// beneath returns the first of b and what it decorates that is a T, or T's zero value.
func beneath[T any](b Backend) (none T) {
	for b != nil {
		if t, ok := b.(T); ok {
			return t
		}
		d, ok := b.(interface{ Unwrap() Backend })
		if !ok {
			return none
		}
		b = d.Unwrap()
	}
	return none
}
