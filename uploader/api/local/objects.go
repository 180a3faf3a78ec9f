package local

import (
	"crypto/rand"
	"strings"
	"time"
)

// The prefixes of our IDs. What follows one is opaque.
const (
	uploadPrefix  = "upload_"
	partPrefix    = "part_"
	filePrefix    = "file-"
	requestPrefix = "req_"
)

// newID returns prefix and 130 random bits in lower-case base32.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// validID reports whether newID could have made s. It checks names found on disk, so that a foreign file is neither
// served nor removed.
func validID(prefix, s string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || len(rest) != 26 {
		return false
	}
	return strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// The states of an Upload.
const (
	statusPending   = "pending"
	statusCompleted = "completed"
	statusCancelled = "cancelled"
	statusExpired   = "expired"
)

// The states of a File.
const (
	statusProcessed = "processed"
	statusError     = "error"
)

// uploadObject is the API's Upload. It does not echo the mime type.
type uploadObject struct {
	ID        string      `json:"id"`
	Object    string      `json:"object"`
	Bytes     int64       `json:"bytes"`
	CreatedAt int64       `json:"created_at"`
	Filename  string      `json:"filename"`
	Purpose   string      `json:"purpose"`
	Status    string      `json:"status"`
	ExpiresAt int64       `json:"expires_at"`
	File      *fileObject `json:"file"`
}

// partObject is the API's UploadPart: no size, no checksum.
type partObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	CreatedAt int64  `json:"created_at"`
	UploadID  string `json:"upload_id"`
}

// fileObject is the API's File.
type fileObject struct {
	ID            string `json:"id"`
	Object        string `json:"object"`
	Bytes         *int64 `json:"bytes"` // null with Faults.NullBytes
	CreatedAt     int64  `json:"created_at"`
	Filename      string `json:"filename"`
	Purpose       string `json:"purpose"`
	Status        string `json:"status"`
	ExpiresAt     *int64 `json:"expires_at,omitempty"`
	StatusDetails string `json:"status_details,omitempty"`
}

// listObject is one page of Files.
type listObject struct {
	Object  string        `json:"object"`
	Data    []*fileObject `json:"data"`
	FirstID *string       `json:"first_id"`
	LastID  *string       `json:"last_id"`
	HasMore bool          `json:"has_more"`
}

// deletedObject acknowledges a deletion.
type deletedObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Deleted bool   `json:"deleted"`
}

func (r *uploadRecord) object(file *fileObject) *uploadObject {
	return &uploadObject{
		ID: r.ID, Object: "upload", Bytes: r.Bytes, CreatedAt: r.CreatedAt.Unix(), Filename: r.Filename,
		Purpose: r.Purpose, Status: r.Status, ExpiresAt: r.ExpiresAt.Unix(), File: file,
	}
}

func (r *fileRecord) object(faults *Faults) *fileObject {
	o := &fileObject{
		ID: r.ID, Object: "file", Bytes: &r.Bytes, CreatedAt: r.CreatedAt.Unix(), Filename: r.Filename,
		Purpose: r.Purpose, Status: r.Status, StatusDetails: r.StatusDetails,
	}
	if faults.NullBytes {
		o.Bytes = nil
	}
	if !r.ExpiresAt.IsZero() {
		seconds := r.ExpiresAt.Unix()
		o.ExpiresAt = &seconds
	}
	return o
}

// after returns t plus seconds, or the zero time (never) for none.
func after(t time.Time, seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return t.Add(time.Duration(seconds) * time.Second)
}
