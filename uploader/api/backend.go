package api

import (
	"context"
	"io"
	"time"
)

// The bounds of a part and of an Upload, in bytes. The API's reference says "64 MB"
// and "8 GB". The official helper sends parts of 64 MiB, and they are accepted. For
// an Upload below 8 GiB the service decides. MinPart is this program's own bound.
const (
	MinPart   = 8 << 20
	MaxPart   = 64 << 20
	MaxUpload = 8 << 30
)

// A small call moves little: every call but AddPart, and AddPart of at most SmallPart
// bytes. SmallCalls of them may be under way at once, beside the large parts.
const (
	SmallPart  = 1 << 20
	SmallCalls = 32
)

// Backend is the API as the uploader sees it. All methods may be called
// concurrently, also for one Upload. Every error they return carries a [Kind]
// (see [KindOf]); an error that is not an [Error] counts as [Transient].
//
// A Backend makes one attempt per call and never repeats one by itself. Retrying
// belongs to the retry decorator, the only place that waits between attempts.
type Backend interface {
	// Create declares an Upload of exactly spec.Bytes bytes.
	Create(ctx context.Context, spec Spec) (Upload, error)

	// AddPart sends body as one part. It reads body from its first byte at
	// every call, so a call may be repeated with the same body. It never
	// holds the whole body in memory. The context ends when the Upload
	// expires; a Backend may wait for an answer until then.
	AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (partID string, err error)

	// Complete makes the File out of the parts, in the order given. md5 is
	// the hex digest of the whole content, or "" to have none checked. Its
	// error has [ErrAlreadyCompleted] in its chain if the API says so.
	Complete(ctx context.Context, uploadID string, partIDs []string, md5 string) (File, error)

	// Cancel ends an Upload that will not be completed, and removes its
	// parts. Cancelling an Upload that is cancelled or expired is no error.
	Cancel(ctx context.Context, uploadID string) error

	// FindFiles lists the Files that could be the result of a Complete
	// whose answer was lost: same name, purpose and size, created at
	// since or later (the API's clock, whole seconds). Newest first. A
	// File whose size the API does not tell has the same size.
	FindFiles(ctx context.Context, spec Spec, since time.Time) ([]File, error)
}

// Spec declares a File before its first byte is sent.
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
	CreatedAt time.Time // by the API's clock, like File.CreatedAt; zero if it does not say
	ExpiresAt time.Time // by our clock; after it the API accepts no part and no Complete
}

// File is the result of a completed Upload.
type File struct {
	ID        string
	Filename  string
	Purpose   string
	Bytes     int64     // 0 if the API does not know it yet
	CreatedAt time.Time // by the API's clock, whole seconds
}

// Purposes are the purposes the API documents for a File, in its order.
var Purposes = []string{"assistants", "batch", "fine-tune", "vision", "user_data", "evals"}
