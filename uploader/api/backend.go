package api

import (
	"context"
	"io"
	"time"
)

// MaxPart and MaxUpload are the largest part and the largest Upload that the
// API takes, in bytes. Its text says "64 MB" and "8 GB"; the official helper
// sends parts of 64 MiB, which are accepted, and for the Upload the service has
// the last word below 8 GiB.
const (
	MinPart   = 8 << 20
	MaxPart   = 64 << 20
	MaxUpload = 8 << 30
)

// Backend is the API as the uploader sees it. All methods may be called
// concurrently, also for one Upload. Every error they return carries a [Kind]
// (see [KindOf]); an error that is not an [Error] counts as [Transient].
//
// A Backend makes one attempt per call and never repeats one by itself:
// retrying belongs to the retry decorator, which is the only place that knows
// about time between attempts.
type Backend interface {
	// Create declares an Upload of exactly spec.Bytes bytes.
	Create(ctx context.Context, spec Spec) (Upload, error)

	// AddPart sends body as one part. It reads body from its first byte at
	// every call, so a call may be repeated with the same body, and it
	// never holds the whole of it in memory.
	AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (partID string, err error)

	// Complete makes the File out of the parts, in the order given. md5 is
	// the hex digest of the whole content, or "" to have none checked.
	Complete(ctx context.Context, uploadID string, partIDs []string, md5 string) (File, error)

	// Cancel ends an Upload that will not be completed. Its parts are gone
	// then. Cancelling what is already cancelled or expired is no error.
	Cancel(ctx context.Context, uploadID string) error

	// FindFiles lists the Files that could be the result of a Complete
	// whose answer was lost: same name, purpose and size, created at
	// since or later (the API's clock, whole seconds). Newest first.
	FindFiles(ctx context.Context, spec Spec, since time.Time) ([]File, error)
}

// Spec is what the API wants to know of a File before its first byte.
type Spec struct {
	Filename string // base name, valid UTF-8
	Purpose  string // one of [Purposes]
	MimeType string
	Bytes    int64         // the exact size; parts of another total are refused at Complete
	Expires  time.Duration // life of the File, whole seconds; 0 for none
}

// Upload is the API's receipt for a declared content.
type Upload struct {
	ID        string
	CreatedAt time.Time // by the API's clock, as File.CreatedAt; zero if it does not say
	ExpiresAt time.Time // by ours: after this no part and no Complete is accepted
}

// File is what an Upload becomes.
type File struct {
	ID        string
	Filename  string
	Purpose   string
	Bytes     int64
	CreatedAt time.Time
}

// Purposes are the purposes the API documents for a File, in its order.
var Purposes = []string{"assistants", "batch", "fine-tune", "vision", "user_data", "evals"}
