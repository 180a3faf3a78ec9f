package uploader

import (
	"encoding/json"
	"fmt"
	"mime"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"uploadfs/uploader/api"
)

// AttrPrefix begins the name of every extended attribute of ours.
const AttrPrefix = "user.uploadfs."

// The writable attributes. They are kept as extended attributes of the same
// name in the backing tree, so they move and die with the file.
const (
	AttrPurpose  = "purpose"
	AttrMimeType = "mime_type"
	AttrExpires  = "expires_after"
	AttrSizeHint = "size_hint"
)

// AttrInfo is readable by name on every file and holds the whole [Status] as
// one JSON object: several values read from it belong to one moment.
const AttrInfo = "info"

// attrSuperseded, and a number, is readable by name: the IDs of the Files that held
// earlier contents, oldest first, from that one on, as many as fit.
const attrSuperseded = "superseded."

// SupersededFrom is the name of the attribute that lists superseded Files from number
// n on. What it lists, separated by commas, says where the next one begins.
func SupersededFrom(n int) string { return attrSuperseded + strconv.Itoa(n) }

// Bounds of expires_after in seconds, from the API.
const (
	MinExpires = 3600
	MaxExpires = 2592000
)

var fileAttrs = []string{"state", "upload_id", "part_ids", "file_id", "progress", "bytes_sent",
	"bytes_acknowledged", "rate", "eta", "md5", "filename", "error", AttrPurpose, AttrMimeType, AttrExpires, AttrSizeHint}

// WritableAttr reports whether the attribute (without prefix) may be set, on a
// directory or on a file.
func WritableAttr(name string, dir bool) bool {
	switch name {
	case AttrPurpose, AttrMimeType, AttrExpires:
		return true
	case AttrSizeHint:
		return !dir // sizes are a file's own
	}
	return false
}

// ValidateAttr says why value is none for the writable attribute name. The
// error is one line for the log; the writer sees EINVAL.
func ValidateAttr(name, value string) error {
	switch name {
	case AttrPurpose:
		return ValidatePurpose(value)
	case AttrMimeType:
		if kind, _, err := mime.ParseMediaType(value); err != nil || !strings.Contains(kind, "/") {
			return fmt.Errorf("mime_type %q: want a type like text/jsonl", value)
		}
	case AttrExpires:
		if n, err := strconv.Atoi(value); err != nil || n < MinExpires || n > MaxExpires {
			return fmt.Errorf("expires_after %q: want seconds from %d to %d", value, MinExpires, MaxExpires)
		}
	case AttrSizeHint:
		if n, err := strconv.ParseInt(value, 10, 64); err != nil || n <= 0 {
			return fmt.Errorf("size_hint %q: want the size in bytes", value)
		}
	default:
		return fmt.Errorf("%s%s cannot be set", AttrPrefix, name)
	}
	return nil
}

// ValidatePurpose says why the API would not take the purpose.
func ValidatePurpose(purpose string) error {
	if !slices.Contains(api.Purposes, purpose) {
		return fmt.Errorf("unknown purpose %q: use one of %s", purpose, strings.Join(api.Purposes, ", "))
	}
	return nil
}

// setting is the value of a writable attribute that holds for a path: its own,
// the nearest directory's, or the default; ok is false where there is none.
func (u *Uploader) setting(rel, name string) (value string, ok bool) {
	if name == AttrSizeHint {
		return u.tree.Getxattr(rel, AttrPrefix+name)
	}
	if value, ok = u.tree.Inherited(rel, AttrPrefix+name); ok {
		return value, true
	}
	switch name {
	case AttrPurpose:
		return u.opts.Purpose, true
	case AttrMimeType:
		return mimeType(rel), true
	}
	return "", false
}

// mimeTypes are the types that the API's users need and that the tables of a
// machine may lack or disagree about.
var mimeTypes = map[string]string{
	".jsonl": "text/jsonl", ".json": "application/json", ".txt": "text/plain", ".md": "text/markdown",
	".csv": "text/csv", ".tsv": "text/tab-separated-values", ".html": "text/html", ".pdf": "application/pdf",
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
	".zip": "application/zip", ".gz": "application/gzip", ".tar": "application/x-tar", ".mp4": "video/mp4",
	".mp3": "audio/mpeg", ".wav": "audio/wav",
}

// mimeType is the type that a name's extension stands for.
func mimeType(rel string) string {
	ext := strings.ToLower(path.Ext(rel))
	if t, ok := mimeTypes[ext]; ok {
		return t
	}
	if kind, _, err := mime.ParseMediaType(mime.TypeByExtension(ext)); err == nil {
		return kind
	}
	return "application/octet-stream"
}

// spec is what is declared of a file when its Upload is created: the attributes
// as they are now, and its name as it is now, made valid UTF-8.
func (u *Uploader) spec(rel string, size int64) api.Spec {
	name := path.Base(rel)
	if !utf8.ValidString(name) {
		name = strings.ToValidUTF8(name, "\uFFFD")
	}
	s := api.Spec{Filename: name, Bytes: size}
	s.Purpose, _ = u.setting(rel, AttrPurpose)
	s.MimeType, _ = u.setting(rel, AttrMimeType)
	if v, ok := u.setting(rel, AttrExpires); ok {
		if n, err := strconv.Atoi(v); err == nil {
			s.Expires = time.Duration(n) * time.Second
		}
	}
	return s
}

// Attr is the value of one of our extended attributes on the file or directory
// at rel, name without the prefix. st is the file's status, nil for a directory.
// ok is false where the attribute has no value. It never waits.
func (u *Uploader) Attr(st *Status, rel, name string) (value string, ok bool) {
	if WritableAttr(name, st == nil) {
		if st == nil && name == AttrMimeType {
			// The default comes from a file's extension; a directory has none.
			return u.tree.Inherited(rel, AttrPrefix+name)
		}
		return u.setting(rel, name)
	}
	if st == nil {
		return "", false
	}
	switch name {
	case "state":
		value = string(st.State)
	case "upload_id":
		value = st.UploadID
	case "part_ids":
		value = strings.Join(st.PartIDs, ",")
	case "file_id":
		value = st.FileID
	case "progress":
		value = st.PartsDone()
	case "bytes_sent":
		if st.UploadID != "" {
			value = strconv.FormatInt(st.BytesSent, 10)
		}
	case "bytes_acknowledged":
		if st.Sending() {
			value = strconv.FormatInt(st.Acknowledged, 10)
		}
	case "rate":
		if st.Sending() {
			value = strconv.FormatInt(st.Rate, 10)
		}
	case "eta":
		if st.ETA > 0 && st.Sending() {
			value = strconv.FormatInt(st.ETA, 10)
		}
	case "md5":
		value = st.MD5
	case "filename":
		value = st.Filename
	case "error":
		value = st.Error
	case AttrInfo:
		value = st.json()
	default:
		if i, ok := numbered(name, "part."); ok {
			value = st.PartAt(i)
		} else if i, ok := numbered(name, attrSuperseded); ok && i < st.SupersededCount {
			value = u.supersededFrom(st, i)
		}
	}
	return value, value != ""
}

// numbered is the number that follows prefix in a name.
func numbered(name, prefix string) (n int, ok bool) {
	digits, found := strings.CutPrefix(name, prefix)
	n, err := strconv.Atoi(digits)
	return n, found && err == nil && n >= 0 && digits == strconv.Itoa(n)
}

// supersededFrom lists the superseded Files from number from on, as many as fit.
func (u *Uploader) supersededFrom(st *Status, from int) string {
	const most = 4096 // IDs in one value
	ids, err := u.journal.Superseded(st.key, from, most)
	if err != nil {
		u.log.Error("superseded Files not listed", "path", st.Path, "error", err)
	}
	var list strings.Builder
	for i, id := range ids {
		if list.Len()+1+len(id) > maxAttr {
			break
		}
		if i > 0 {
			list.WriteByte(',')
		}
		list.WriteString(id)
	}
	return list.String()
}

// maxAttr is the most that the kernel takes for the value of an extended
// attribute, in bytes.
const maxAttr = 64 << 10

// json is the status as one object. Lists that would not fit are left out: the part
// IDs, of which an Upload can have a thousand, and then the superseded Files. They can
// be read by number.
func (s *Status) json() string {
	b, err := json.Marshal(s)
	short := *s
	for _, list := range []*[]string{&short.PartIDs, &short.Superseded} {
		if err != nil || len(b) <= maxAttr {
			break
		}
		*list = nil
		b, err = json.Marshal(&short)
	}
	if err != nil {
		return ""
	}
	return string(b)
}

// ListAttrs names those of our attributes, without the prefix, that have a
// value and are listed; st is nil for a directory.
func (u *Uploader) ListAttrs(st *Status, rel string) []string {
	var names []string
	for _, name := range fileAttrs {
		if _, ok := u.Attr(st, rel, name); ok {
			names = append(names, name)
		}
	}
	return names
}
