package openai

import (
	"context"
	"io"
	"time"

	"uploadfs/uploader/api"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// Raw makes the same calls as a [Backend], one request each, but returns the API's
// JSON unchanged. So its callers see every member, also those that this program does
// not know. It does not check what an answer says. Its errors are those of the
// Backend. It may be used concurrently.
type Raw struct{ b *Backend }

// Raw returns the Backend's calls with unread answers.
func (b *Backend) Raw() Raw { return Raw{b} }

// Create declares an Upload.
func (r Raw) Create(ctx context.Context, spec api.Spec) (json string, err error) {
	err = r.b.do(ctx, call{op: opCreate}, func(ctx context.Context, opts ...option.RequestOption) error {
		res, err := r.b.uploads.New(ctx, createParams(spec), opts...)
		json = rawOf(res, err)
		return err
	})
	return json, err
}

// AddPart sends a part, streamed.
func (r Raw) AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (json string, err error) {
	c := call{op: opPart, uploadID: uploadID, body: body}
	err = r.b.do(ctx, c, func(ctx context.Context, opts ...option.RequestOption) error {
		opts = append(opts, option.WithHTTPClient(r.b.partClient))
		res, err := r.b.uploads.Parts.New(ctx, uploadID, openai.UploadPartNewParams{}, opts...)
		json = rawOf(res, err)
		return err
	})
	return json, err
}

// Complete makes the File. An empty md5 is not sent.
func (r Raw) Complete(ctx context.Context, uploadID string, partIDs []string, md5 string) (json string, err error) {
	c := call{op: opComplete, uploadID: uploadID}
	err = r.b.do(ctx, c, func(ctx context.Context, opts ...option.RequestOption) error {
		res, err := r.b.uploads.Complete(ctx, uploadID, completeParams(partIDs, md5), opts...)
		json = rawOf(res, err)
		return err
	})
	return json, err
}

// Cancel ends an Upload. Unlike the Backend's Cancel, it fails if the Upload has
// already ended.
func (r Raw) Cancel(ctx context.Context, uploadID string) (json string, err error) {
	c := call{op: opCancel, uploadID: uploadID}
	err = r.b.do(ctx, c, func(ctx context.Context, opts ...option.RequestOption) error {
		res, err := r.b.uploads.Cancel(ctx, uploadID, opts...)
		json = rawOf(res, err)
		return err
	})
	return json, err
}

// rawOf returns the JSON of an answer of the SDK, or "" if there is none.
func rawOf(res interface{ RawJSON() string }, err error) string {
	if err != nil {
		return ""
	}
	return res.RawJSON()
}

// createParams returns the parameters that declare spec.
func createParams(spec api.Spec) openai.UploadNewParams {
	params := openai.UploadNewParams{
		Bytes:    spec.Bytes,
		Filename: spec.Filename,
		MimeType: spec.MimeType,
		Purpose:  openai.FilePurpose(spec.Purpose),
	}
	if spec.Expires != 0 {
		params.ExpiresAfter.Seconds = int64(spec.Expires / time.Second)
	}
	return params
}

func completeParams(partIDs []string, md5 string) openai.UploadCompleteParams {
	params := openai.UploadCompleteParams{PartIDs: partIDs}
	if md5 != "" {
		params.Md5 = openai.String(md5)
	}
	return params
}
