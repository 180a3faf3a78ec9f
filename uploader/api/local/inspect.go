package local

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"time"
)

// PartInfo is a part as the server holds it.
type PartInfo struct {
	ID    string
	Bytes int64
}

// UploadInfo is an Upload as the server holds it; the API itself shows less of it, and only once.
type UploadInfo struct {
	ID           string
	Filename     string
	Purpose      string
	MimeType     string
	Bytes        int64 // as declared
	Status       string
	ExpiresAfter time.Duration // of the File; 0 for never
	CreatedAt    time.Time
	ExpiresAt    time.Time
	FileID       string     // once completed
	Listed       []PartInfo // once completed, in the order of the content
	Received     []PartInfo // all that were acknowledged, in that order; after a restart in no particular one
}

// FileInfo is a File as the server holds it.
type FileInfo struct {
	ID        string
	Filename  string
	Purpose   string
	MimeType  string
	Bytes     int64
	Status    string
	CreatedAt time.Time
	ExpiresAt time.Time  // zero for never
	UploadID  string     // empty if it was posted whole
	Parts     []PartInfo // in the order of the content
}

// Uploads returns all Uploads that are still known, oldest first.
func (s *Server) Uploads() []UploadInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	byAge := slices.SortedFunc(maps.Values(s.uploads), func(a, b *upload) int { return cmp.Compare(a.Seq, b.Seq) })
	infos := make([]UploadInfo, 0, len(byAge))
	for _, u := range byAge {
		info := UploadInfo{
			ID: u.ID, Filename: u.Filename, Purpose: u.Purpose, MimeType: u.MimeType, Bytes: u.Bytes, Status: u.Status,
			ExpiresAfter: time.Duration(u.ExpiresAfter) * time.Second, CreatedAt: u.CreatedAt, ExpiresAt: u.ExpiresAt,
			FileID: u.FileID, Listed: partInfos(u.Parts),
		}
		if u.Status == statusPending && !s.now().Before(u.ExpiresAt) {
			info.Status = statusExpired
		}
		for _, p := range u.received {
			info.Received = append(info.Received, PartInfo(p.partRecord))
		}
		infos = append(infos, info)
	}
	return infos
}

// Files returns all Files, oldest first.
func (s *Server) Files() []FileInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make([]FileInfo, 0, len(s.ordered))
	for _, f := range s.ordered {
		if !s.isLive(f) {
			continue
		}
		info := FileInfo{
			ID: f.ID, Filename: f.Filename, Purpose: f.Purpose, MimeType: f.MimeType, Bytes: f.Bytes, Status: f.Status,
			CreatedAt: f.CreatedAt, ExpiresAt: f.ExpiresAt, Parts: partInfos(f.Parts),
		}
		if f.Owner != f.ID {
			info.UploadID = f.Owner
		}
		infos = append(infos, info)
	}
	return infos
}

func partInfos(parts []partRecord) []PartInfo {
	infos := make([]PartInfo, len(parts))
	for i, p := range parts {
		infos[i] = PartInfo(p)
	}
	return infos
}

// OpenContent opens a File's content, whatever its purpose. The bytes stay until the reader is closed, also if the
// File is deleted. The caller must Close the reader, and do so before the Server.
func (s *Server) OpenContent(fileID string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.liveFile(fileID)
	if err != nil {
		return nil, err
	}
	f.readers++
	return &openContent{contentReader: newContentReader(s.store, f.Owner, f.Parts), done: func() { s.release(f) }}, nil
}

// openContent is a reader that counts in file.readers until it is closed.
type openContent struct {
	*contentReader
	done func()
}

func (o *openContent) Close() error {
	if o.done != nil {
		o.done()
		o.done = nil
	}
	return o.contentReader.Close()
}
