package apitest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"uploadfs/uploader/api"
)

// Create implements [api.Backend].
func (m *Memory) Create(ctx context.Context, spec api.Spec) (created api.Upload, err error) {
	err = m.call(ctx, Call{Op: OpCreate}, func(Call) error {
		if err := checkSpec(spec); err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.counts.Created++
		id := fmt.Sprintf("upload_%04d", m.counts.Created)
		now := m.Now()
		u := &upload{id: id, spec: spec, state: pending, expires: now.Add(uploadLife), parts: make(map[string][]byte)}
		m.uploads[id] = u
		created = api.Upload{ID: id, CreatedAt: now.Truncate(time.Second), ExpiresAt: u.expires}
		return nil
	})
	if err != nil {
		return api.Upload{}, err
	}
	return created, nil
}

func checkSpec(spec api.Spec) error {
	switch {
	case spec.Filename == "":
		return refused("Missing required parameter: 'filename'.")
	case spec.MimeType == "":
		return refused("Missing required parameter: 'mime_type'.")
	case !slices.Contains(api.Purposes, spec.Purpose):
		return refused(fmt.Sprintf("'%s' is not one of %q - 'purpose'", spec.Purpose, api.Purposes))
	case spec.Bytes <= 0:
		return refused("Invalid 'bytes': it must be greater than 0.")
	case spec.Bytes > api.MaxUpload:
		return tooLarge()
	case spec.Expires != 0 && (spec.Expires < time.Hour || spec.Expires > 30*24*time.Hour || spec.Expires%time.Second != 0):
		return refused("Invalid 'expires_after': it must be 3600 to 2592000 seconds.")
	}
	return nil
}

// AddPart implements [api.Backend].
func (m *Memory) AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (partID string, err error) {
	err = m.call(ctx, Call{Op: OpPart, UploadID: uploadID}, func(c Call) error {
		m.mu.Lock()
		_, err := m.pending(uploadID)
		m.mu.Unlock()
		switch {
		case err != nil:
			return err
		case body.Size() == 0:
			return refused("File is empty.")
		case body.Size() > api.MaxPart:
			return tooLarge()
		}
		api.NoteProgress(ctx, 0)
		content, err := m.read(ctx, c, body)
		if err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		u, err := m.pending(uploadID) // it may have ended meanwhile
		if err != nil {
			return err
		}
		m.counts.Parts++
		m.counts.PartBytes += int64(len(content))
		partID = fmt.Sprintf("part_%04d", m.counts.Parts)
		u.parts[partID] = content
		return nil
	})
	if err != nil {
		return "", err
	}
	api.NoteProgress(ctx, body.Size())
	return partID, nil
}

// read reads body from its first byte. [MidBody] is between its two halves.
func (m *Memory) read(ctx context.Context, c Call, body *io.SectionReader) ([]byte, error) {
	content := make([]byte, body.Size())
	half := len(content) / 2
	for i, piece := range [][]byte{content[:half], content[half:]} {
		if i == 1 {
			api.NoteProgress(ctx, int64(half))
			if err := m.at(ctx, c, MidBody); err != nil {
				return nil, err
			}
		}
		if n, err := body.ReadAt(piece, int64(i*half)); n < len(piece) {
			if err == io.EOF {
				err = fmt.Errorf("the file became shorter while it was sent: %w", io.ErrUnexpectedEOF)
			}
			return nil, &api.Error{Kind: api.Local, Err: err}
		}
	}
	return content, nil
}

// Complete implements [api.Backend].
func (m *Memory) Complete(ctx context.Context, uploadID string, partIDs []string, md5 string) (made api.File, err error) {
	err = m.call(ctx, Call{Op: OpComplete, UploadID: uploadID}, func(Call) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		u, err := m.pending(uploadID)
		if err != nil {
			return err
		}
		content, err := u.assemble(partIDs, md5)
		if err != nil {
			return err
		}
		u.state, u.parts = completed, nil
		m.counts.Completed++
		made = api.File{
			ID:        fmt.Sprintf("file-%04d", m.counts.Completed),
			Filename:  u.spec.Filename,
			Purpose:   u.spec.Purpose,
			Bytes:     u.spec.Bytes,
			CreatedAt: m.Now().Truncate(time.Second),
		}
		m.files = append(m.files, &file{made, m.Now(), content})
		made = m.answered(made)
		return nil
	})
	if err != nil {
		return api.File{}, err
	}
	return made, nil
}

// assemble joins the listed parts and checks the rules of complete.
func (u *upload) assemble(partIDs []string, sum string) ([]byte, error) {
	var content bytes.Buffer
	seen := make(map[string]bool)
	for _, id := range partIDs {
		part, ok := u.parts[id]
		if !ok {
			return nil, refused(fmt.Sprintf("No such Part in Upload %s: %s", u.id, id))
		}
		if seen[id] {
			return nil, refused(fmt.Sprintf("Part %s is listed more than once.", id))
		}
		seen[id] = true
		content.Write(part)
	}
	if int64(content.Len()) != u.spec.Bytes {
		return nil, refused(fmt.Sprintf("Upload %s was declared with %d bytes, but the listed parts have %d.",
			u.id, u.spec.Bytes, content.Len()))
	}
	if got := md5.Sum(content.Bytes()); sum != "" && sum != hex.EncodeToString(got[:]) {
		return nil, refused(fmt.Sprintf("The MD5 of Upload %s is %x, not %s.", u.id, got, sum))
	}
	return content.Bytes(), nil
}

// Cancel implements [api.Backend].
func (m *Memory) Cancel(ctx context.Context, uploadID string) error {
	return m.call(ctx, Call{Op: OpCancel, UploadID: uploadID}, func(Call) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		u, err := m.pending(uploadID)
		if api.KindOf(err) == api.Gone {
			return nil
		}
		if err != nil {
			return err
		}
		u.state, u.parts = cancelled, nil
		m.counts.Cancelled++
		return nil
	})
}

// FindFiles implements [api.Backend].
func (m *Memory) FindFiles(ctx context.Context, spec api.Spec, since time.Time) ([]api.File, error) {
	var found []api.File
	err := m.call(ctx, Call{Op: OpFind}, func(Call) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, f := range slices.Backward(m.files) {
			if f.Filename == spec.Filename && f.Purpose == spec.Purpose && f.Bytes == spec.Bytes &&
				f.CreatedAt.Unix() >= since.Unix() && !m.Now().Before(f.created.Add(m.ListLag)) {
				found = append(found, m.answered(f.File))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// FileExists implements [api.FileChecker].
func (m *Memory) FileExists(ctx context.Context, fileID string) (exists bool, err error) {
	err = m.call(ctx, Call{Op: OpGet}, func(Call) error {
		_, exists = m.Content(fileID)
		return nil
	})
	return exists && err == nil, err
}

// pending returns an Upload that accepts parts, or the API's refusal. mu is held.
func (m *Memory) pending(id string) (*upload, error) {
	u := m.uploads[id]
	gone := func(status int, msg string) error {
		return &api.Error{Kind: api.Gone, Status: status, Message: fmt.Sprintf(msg, id)}
	}
	switch {
	case u == nil:
		return nil, gone(http.StatusNotFound, "No such Upload object: %s")
	case u.state == completed:
		e := refused(fmt.Sprintf("Upload %s is already completed.", id))
		e.Err = api.ErrAlreadyCompleted
		return nil, e
	case u.state == cancelled:
		return nil, gone(http.StatusBadRequest, "Upload %s is already cancelled.")
	case !m.Now().Before(u.expires):
		return nil, gone(http.StatusBadRequest, "Upload %s has expired.")
	}
	return u, nil
}

// call counts one call, runs it through its stages and annotates its error.
func (m *Memory) call(ctx context.Context, c Call, work func(Call) error) error {
	m.mu.Lock()
	m.counts.Calls[c.Op]++
	c.N = m.counts.Calls[c.Op]
	m.counts.InFlight[c.Op]++
	m.counts.Peak[c.Op] = max(m.counts.Peak[c.Op], m.counts.InFlight[c.Op])
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.counts.InFlight[c.Op]--
		m.mu.Unlock()
	}()

	err := m.at(ctx, c, Before)
	if err == nil {
		err = work(c)
	}
	if err == nil {
		err = m.at(ctx, c, After)
	}
	return m.annotate(c, err)
}

// annotate returns err as an [api.Error] with the call's Op and Upload, and with the
// time if it is an answer.
func (m *Memory) annotate(c Call, err error) error {
	if err == nil {
		return nil
	}
	e := (*api.Error)(nil)
	if !errors.As(err, &e) {
		return &api.Error{Op: string(c.Op), UploadID: c.UploadID, Err: err}
	}
	if e.Op != "" {
		return err
	}
	annotated := *e
	annotated.Op, annotated.UploadID = string(c.Op), c.UploadID
	if e.Status != 0 && !m.NoDate {
		annotated.ServerTime = m.Now().Truncate(time.Second)
	}
	return &annotated
}

func refused(msg string) *api.Error {
	return &api.Error{Kind: api.Refused, Status: http.StatusBadRequest, Message: msg}
}

func tooLarge() *api.Error {
	return &api.Error{Kind: api.TooLarge, Status: http.StatusBadRequest, Message: "File is too large."}
}
