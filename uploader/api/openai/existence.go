package openai

import (
	"context"
	"errors"
	"net/http"

	"github.com/openai/openai-go/v3/option"

	"uploadfs/uploader/api"
)

var _ api.FileChecker = (*Backend)(nil)

// FileExists implements [api.FileChecker].
func (b *Backend) FileExists(ctx context.Context, fileID string) (bool, error) {
	err := b.do(ctx, call{op: opGet}, func(ctx context.Context, opts ...option.RequestOption) error {
		res, err := b.files.Get(ctx, fileID, opts...)
		if err != nil {
			return err
		}
		return checkObject(res.ID, string(res.Object), "file")
	})
	var refused *api.Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}
