package openai

import (
	"context"
	"io"

	"github.com/openai/openai-go/v3/option"

	"uploadfs/uploader/api"
)

var _ api.FileReader = (*Backend)(nil)

// ReadFile implements [api.FileReader].
func (b *Backend) ReadFile(ctx context.Context, fileID string, w io.Writer) error {
	return b.do(ctx, call{op: opRead, into: w}, func(ctx context.Context, opts ...option.RequestOption) error {
		res, err := b.files.Content(ctx, fileID, opts...)
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
}
