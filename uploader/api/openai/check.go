package openai

import (
	"context"
	"errors"
	"net/http"
	"time"

	"uploadfs/uploader/api"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

const opCheck = "check"

var _ api.KeyChecker = (*Backend)(nil)

// CheckKey implements [api.KeyChecker]. It lists one File: FindFiles needs that right
// too.
func (b *Backend) CheckKey(ctx context.Context) (time.Time, error) {
	var answer *http.Response
	err := b.do(ctx, call{op: opCheck}, func(ctx context.Context, opts ...option.RequestOption) error {
		_, err := b.files.List(ctx, openai.FileListParams{Limit: openai.Int(1)}, append(opts, option.WithResponseInto(&answer))...)
		return err
	})
	var refused *api.Error
	switch {
	case errors.As(err, &refused):
		return refused.ServerTime, err
	case answer == nil:
		return time.Time{}, err
	}
	return serverTime(answer.Header), err
}
