// Package openai is the [api.Backend] for the OpenAI Uploads and Files API, and for
// servers that are compatible with it. It uses the official SDK over HTTP.
//
// A call is one request. The SDK's own retries are off, because package retry does
// the retrying. The exception is a 401: the Backend reads the key again and, if it
// has changed, makes the call once more. So a key can be rotated during uploads.
//
// A part is streamed from its section over HTTP/1.1, with its exact length. No part
// is held in memory. Calls have no deadline, but a call without progress fails like
// a broken connection.
//
// Errors are [api.Error] values. Their text is one line: the API's own message
// where there is one. It never contains the key, even if the server repeats it. The
// error of a request that never reached a server has [api.ErrNotSent] in its chain.
package openai

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"uploadfs/uploader/api"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

const (
	opCreate   = "create"
	opPart     = "part"
	opComplete = "complete"
	opCancel   = "cancel"
	opFind     = "find"
	opRead     = "read"
	opGet      = "get"
)

const (
	// uploadLife is assumed where an Upload does not say when it expires.
	uploadLife = time.Hour
	// findPage is the number of Files on a page of FindFiles. The Files that it
	// looks for are new, so they are on the first page.
	findPage = 100
)

// Backend is the API behind one base URL. It may be used concurrently.
type Backend struct {
	cfg     Config
	keys    *keyring
	uploads openai.UploadService
	files   openai.FileService

	// Parts have their own connections. So a small call never waits for a part
	// of 64 MiB, and no part waits for a Complete that takes minutes.
	partClient, callClient *http.Client // of large parts, and of all other calls
}

var _ api.Backend = (*Backend)(nil)

// New checks cfg, reads the key and returns a Backend. It connects to nothing.
func New(cfg Config) (*Backend, error) {
	cfg = cfg.withDefaults()
	base, err := parseBaseURL(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	keys, err := newKeyring(cfg.Key)
	if err != nil {
		return nil, err
	}
	if exposed(base) && !cfg.InsecureHTTP {
		if keys.current() != "" {
			return nil, fmt.Errorf("base URL %q would send the API key over plain http to another machine: "+
				"use https, or --insecure-http if the network is trusted", cfg.BaseURL)
		}
		keys.source = nil // a key that appears later must not be sent there either
	}
	b := &Backend{
		cfg:        cfg,
		keys:       keys,
		partClient: newClient(cfg, cfg.Slots),
		callClient: newClient(cfg, api.SmallCalls),
	}
	// Unlike openai.NewClient, the services read no environment variables.
	opts := b.options()
	b.uploads = openai.NewUploadService(opts...)
	b.files = openai.NewFileService(opts...)
	return b, nil
}

// options returns the options of every request.
func (b *Backend) options() []option.RequestOption {
	opts := []option.RequestOption{
		option.WithBaseURL(b.cfg.BaseURL),
		option.WithHTTPClient(b.callClient),
		option.WithMaxRetries(0),
	}
	if b.cfg.Organization != "" {
		opts = append(opts, option.WithOrganization(b.cfg.Organization))
	}
	if b.cfg.Project != "" {
		opts = append(opts, option.WithProject(b.cfg.Project))
	}
	if b.cfg.UserAgent != "" {
		opts = append(opts, option.WithHeader("User-Agent", b.cfg.UserAgent))
	}
	for name, values := range b.cfg.Header {
		for i, value := range values {
			if i == 0 {
				opts = append(opts, option.WithHeader(name, value))
			} else {
				opts = append(opts, option.WithHeaderAdd(name, value))
			}
		}
	}
	return opts
}

// Close closes the connections that no call is using.
func (b *Backend) Close() {
	b.partClient.CloseIdleConnections()
	b.callClient.CloseIdleConnections()
}

// Create implements [api.Backend].
func (b *Backend) Create(ctx context.Context, spec api.Spec) (api.Upload, error) {
	var upload api.Upload
	err := b.do(ctx, call{op: opCreate}, func(ctx context.Context, opts ...option.RequestOption) error {
		asked := time.Now()
		res, err := b.uploads.New(ctx, createParams(spec), opts...)
		if err != nil {
			return err
		}
		if err := checkObject(res.ID, string(res.Object), "upload"); err != nil {
			return err
		}
		if res.JSON.Bytes.Valid() && res.Bytes != spec.Bytes {
			return fmt.Errorf("declared %d bytes, the upload says %d", spec.Bytes, res.Bytes)
		}
		// The API's clock may be an hour away from ours: only how long it says
		// counts.
		upload = api.Upload{ID: res.ID, ExpiresAt: asked.Add(uploadLife)}
		if res.CreatedAt > 0 {
			upload.CreatedAt = time.Unix(res.CreatedAt, 0)
			if res.ExpiresAt > res.CreatedAt {
				upload.ExpiresAt = asked.Add(time.Duration(res.ExpiresAt-res.CreatedAt) * time.Second)
			}
		}
		return nil
	})
	return upload, err
}

// AddPart implements [api.Backend]. It does not read the section after it has
// returned.
func (b *Backend) AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (string, error) {
	var id string
	c := call{op: opPart, uploadID: uploadID, body: body}
	err := b.do(ctx, c, func(ctx context.Context, opts ...option.RequestOption) error {
		// The SDK would copy the data into memory, twice. So it gets no data,
		// and the middleware sets the body.
		if body.Size() > api.SmallPart {
			opts = append(opts, option.WithHTTPClient(b.partClient))
		}
		res, err := b.uploads.Parts.New(ctx, uploadID, openai.UploadPartNewParams{}, opts...)
		if err != nil {
			return err
		}
		if err := checkObject(res.ID, string(res.Object), "upload.part"); err != nil {
			return err
		}
		if res.UploadID != "" && res.UploadID != uploadID {
			return fmt.Errorf("the part is of upload %q", res.UploadID)
		}
		id = res.ID
		return nil
	})
	return id, err
}

// Complete implements [api.Backend].
func (b *Backend) Complete(ctx context.Context, uploadID string, partIDs []string, md5 string) (api.File, error) {
	var file api.File
	c := call{op: opComplete, uploadID: uploadID}
	err := b.do(ctx, c, func(ctx context.Context, opts ...option.RequestOption) error {
		res, err := b.uploads.Complete(ctx, uploadID, completeParams(partIDs, md5), opts...)
		if err != nil {
			return err
		}
		if err := checkObject(res.ID, string(res.Object), "upload"); err != nil {
			return err
		}
		if err := checkObject(res.File.ID, string(res.File.Object), "file"); err != nil {
			return fmt.Errorf("file: %w", err)
		}
		if res.Status != openai.UploadStatusCompleted {
			return fmt.Errorf("the upload's status is %q", res.Status)
		}
		// The size of a File may be null: it is not known yet.
		if res.JSON.Bytes.Valid() && res.File.JSON.Bytes.Valid() && res.Bytes != res.File.Bytes {
			return fmt.Errorf("the upload has %d bytes, its file %d", res.Bytes, res.File.Bytes)
		}
		file = fileOf(res.File)
		return nil
	})
	return file, err
}

// Cancel implements [api.Backend].
func (b *Backend) Cancel(ctx context.Context, uploadID string) error {
	c := call{op: opCancel, uploadID: uploadID}
	err := b.do(ctx, c, func(ctx context.Context, opts ...option.RequestOption) error {
		res, err := b.uploads.Cancel(ctx, uploadID, opts...)
		if err != nil {
			return err
		}
		return checkObject(res.ID, string(res.Object), "upload")
	})
	var e *api.Error
	if errors.As(err, &e) && (e.Kind == api.Gone || e.Status == http.StatusBadRequest && saysEnded.MatchString(e.Message)) {
		return nil // it has ended already
	}
	return err
}

// FindFiles implements [api.Backend].
func (b *Backend) FindFiles(ctx context.Context, spec api.Spec, since time.Time) ([]api.File, error) {
	var found []api.File
	params := openai.FileListParams{
		Purpose: openai.String(spec.Purpose),
		Limit:   openai.Int(findPage),
		Order:   openai.FileListParamsOrderDesc,
	}
	for more := true; more; {
		err := b.do(ctx, call{op: opFind}, func(ctx context.Context, opts ...option.RequestOption) error {
			page, err := b.files.List(ctx, params, opts...)
			if err != nil {
				return err
			}
			if !page.JSON.Data.Valid() {
				return errors.New("a list without data")
			}
			// Some services do not say whether there is more. FindFiles then
			// asks until a page is empty.
			more = len(page.Data) > 0 && (page.HasMore || !page.JSON.HasMore.Valid())
			for _, f := range page.Data {
				switch {
				case f.CreatedAt < since.Unix():
					more = false
				case f.Filename == spec.Filename && string(f.Purpose) == spec.Purpose &&
					(f.Bytes == spec.Bytes || !f.JSON.Bytes.Valid()): // not known yet
					found = append(found, fileOf(f))
				}
			}
			if more {
				last := page.Data[len(page.Data)-1].ID
				if last == "" || last == params.After.Value {
					return errors.New("a page that does not say where the next begins")
				}
				params.After = openai.String(last)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(found, func(a, b api.File) int { return cmp.Compare(b.CreatedAt.Unix(), a.CreatedAt.Unix()) })
	return found, nil
}

// checkObject checks that an answer is an object of the wanted type with an ID. The
// type may be missing, because not every service sends it.
func checkObject(id, object, want string) error {
	switch {
	case object != "" && object != want:
		return fmt.Errorf("object %q instead of %q", object, want)
	case id == "":
		return errors.New("no id")
	}
	return nil
}

func fileOf(f openai.FileObject) api.File {
	return api.File{
		ID:        f.ID,
		Filename:  f.Filename,
		Purpose:   string(f.Purpose),
		Bytes:     f.Bytes,
		CreatedAt: time.Unix(f.CreatedAt, 0),
	}
}
