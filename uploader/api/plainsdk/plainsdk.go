// Package plainsdk uploads a file with the official Go SDK as its documentation
// shows it. Tests and benchmarks compare uploadfs with it.
package plainsdk

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"io"

	"github.com/openai/openai-go/v3"
	"golang.org/x/sync/errgroup"
)

// Upload is how a file is sent.
type Upload struct {
	Client   openai.Client
	Params   openai.UploadNewParams // Bytes is the size of the file
	PartSize int64                  // bytes
	Parallel int                    // parts in flight; the SDK holds each in memory more than twice
	MD5      bool                   // read the file once more and have the API compare its MD5

	// AddPart sends one part instead of the SDK, if it is set.
	AddPart func(ctx context.Context, uploadID string, body *io.SectionReader) (partID string, err error)
}

// Send makes a File of the content and returns its ID. It retries nothing but what
// the Client retries.
func (u Upload) Send(ctx context.Context, content io.ReaderAt) (fileID string, err error) {
	size := u.Params.Bytes
	upload, err := u.Client.Uploads.New(ctx, u.Params)
	if err != nil {
		return "", err
	}
	addPart := u.AddPart
	if addPart == nil {
		addPart = u.addPart
	}
	ids := make([]string, (size+u.PartSize-1)/u.PartSize)
	var parts errgroup.Group
	parts.SetLimit(u.Parallel)
	for i := range ids {
		parts.Go(func() (err error) {
			off := int64(i) * u.PartSize
			ids[i], err = addPart(ctx, upload.ID, io.NewSectionReader(content, off, min(u.PartSize, size-off)))
			return err
		})
	}
	if err := parts.Wait(); err != nil {
		return "", err
	}
	params := openai.UploadCompleteParams{PartIDs: ids}
	if u.MD5 {
		sum := md5.New()
		if _, err := io.Copy(sum, io.NewSectionReader(content, 0, size)); err != nil {
			return "", err
		}
		params.Md5 = openai.String(hex.EncodeToString(sum.Sum(nil)))
	}
	done, err := u.Client.Uploads.Complete(ctx, upload.ID, params)
	if err != nil {
		return "", err
	}
	return done.File.ID, nil
}

func (u Upload) addPart(ctx context.Context, uploadID string, body *io.SectionReader) (string, error) {
	part, err := u.Client.Uploads.Parts.New(ctx, uploadID, openai.UploadPartNewParams{Data: body})
	if err != nil {
		return "", err
	}
	return part.ID, nil
}
