package local

import (
	"cmp"
	"errors"
	"io"
	"slices"
)

// maxFormValue bounds the small fields of a form.
const maxFormValue = 4 << 10

// newFile makes the File of a completed Upload.
func (s *Server) newFile(u *upload, listed []partRecord) *file {
	f := &file{fileRecord: fileRecord{
		ID: newID(filePrefix), Filename: u.Filename, Purpose: u.Purpose, MimeType: u.MimeType, Bytes: u.Bytes,
		CreatedAt: s.now(), Status: statusProcessed, Owner: u.ID, Parts: listed,
	}}
	f.ExpiresAt = after(f.CreatedAt, u.ExpiresAfter)
	f.Seq = s.nextSeq()
	return f
}

func (s *Server) nextSeq() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastSeq++
	return s.lastSeq
}

// createFile answers POST /v1/files: the whole File in one request.
func (s *Server) createFile(c *call) (any, error) {
	in := fileForm{}
	err := c.readForm(s.opt.MaxFileBytes+maxFraming, func(form *formReader) error { return in.read(c, form) })
	if in.content != nil {
		defer in.content.discard()
	}
	if err != nil {
		return nil, err
	}
	expiresAfter, err := in.check()
	if err != nil {
		return nil, err
	}
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}

	id := newID(filePrefix)
	p := partRecord{newID(partPrefix), in.content.bytes}
	f := &file{fileRecord: fileRecord{
		ID: id, Seq: s.nextSeq(), Filename: in.filename, Purpose: in.values["purpose"], MimeType: in.mimeType,
		Bytes: p.Bytes, CreatedAt: s.now(), Status: statusProcessed, Owner: id, Parts: []partRecord{p},
	}}
	f.ExpiresAt = after(f.CreatedAt, expiresAfter)
	if err := s.store.newOwner(id); err != nil {
		return nil, err
	}
	err = in.content.keep(id, p.ID)
	if err == nil {
		err = s.store.putRecord(filesDir, id, &f.fileRecord)
	}
	if err != nil {
		return nil, errors.Join(err, s.store.dropOwner(id))
	}
	s.mu.Lock()
	s.publish(f)
	s.mu.Unlock()
	s.counters.filesCreated.Add(1)
	return f.object(c.faults), nil
}

// fileForm is the form of POST /v1/files. Its fields may come in any order.
type fileForm struct {
	values             map[string]string
	filename, mimeType string
	content            *spool
}

func (in *fileForm) read(c *call, form *formReader) error {
	in.values = make(map[string]string)
	for {
		field, err := form.NextField()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		_, repeated := in.values[field.Name]
		if repeated || field.Name == "file" && in.content != nil {
			return badRequest(clip(field.Name), "Parameter '%s' was sent more than once.", clip(field.Name))
		}
		switch field.Name {
		case "file":
			if field.Filename == "" {
				return notUnderstood()
			}
			in.filename, in.mimeType = field.Filename, field.ContentType
			in.content, err = c.receive(form, c.s.opt.MaxFileBytes, "file")
		case "purpose", "expires_after[anchor]", "expires_after[seconds]":
			in.values[field.Name], err = form.Value(maxFormValue)
		default:
			return unknownParameter(field.Name)
		}
		if err != nil {
			return err
		}
	}
}

// check returns the seconds after which the File is to expire, 0 for never.
func (in *fileForm) check() (expiresAfter int64, err error) {
	purpose, ok := in.values["purpose"]
	if !ok {
		return 0, missing("purpose")
	}
	if err := checkPurpose(purpose); err != nil {
		return 0, err
	}
	if in.content == nil {
		return 0, missing("file")
	}
	anchor, hasAnchor := in.values["expires_after[anchor]"]
	seconds, hasSeconds := in.values["expires_after[seconds]"]
	if !hasAnchor && !hasSeconds {
		return 0, nil
	}
	n, err := decimal("expires_after.seconds", seconds)
	if err != nil {
		return 0, err
	}
	return checkExpiresAfter(anchor, n)
}

// publish makes a File known. mu is held.
func (s *Server) publish(f *file) {
	s.files[f.ID] = f
	at, _ := s.position(f)
	s.ordered = slices.Insert(s.ordered, at, f)
}

// position finds a File, or the place for it, among the ordered. mu is held.
func (s *Server) position(f *file) (int, bool) {
	return slices.BinarySearchFunc(s.ordered, f, func(a, b *file) int { return cmp.Compare(a.Seq, b.Seq) })
}

// liveFile returns the File of an ID, unless it is deleted or expired. mu is held.
func (s *Server) liveFile(id string) (*file, error) {
	f := s.files[id]
	if f == nil || !s.isLive(f) {
		return nil, noSuchFile(id)
	}
	return f, nil
}

// isLive reports whether a File is neither deleted nor expired. mu is held.
func (s *Server) isLive(f *file) bool {
	return !f.gone && (f.ExpiresAt.IsZero() || s.now().Before(f.ExpiresAt))
}

// getFile answers GET /v1/files/{id}.
func (s *Server) getFile(c *call) (any, error) {
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.liveFile(c.id)
	if err != nil {
		return nil, err
	}
	return f.object(c.faults), nil
}

// deleteFile answers DELETE /v1/files/{id}.
func (s *Server) deleteFile(c *call) (any, error) {
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}
	s.mu.Lock()
	f, err := s.liveFile(c.id)
	if err == nil {
		f.gone = true // no other request finds it from here on
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := s.remove(f); err != nil {
		return nil, err
	}
	return &deletedObject{ID: f.ID, Object: "file", Deleted: true}, nil
}

// remove removes a File that its caller has marked gone. Its bytes are removed now, or when the last download ends. If
// the record cannot be removed, the File is available again.
func (s *Server) remove(f *file) error {
	err := s.store.dropRecord(filesDir, f.ID)
	s.mu.Lock()
	if err != nil {
		f.gone = false
		s.mu.Unlock()
		return err
	}
	delete(s.files, f.ID)
	if at, ok := s.position(f); ok {
		s.ordered = slices.Delete(s.ordered, at, at+1)
	}
	unread := f.readers == 0
	s.mu.Unlock()
	if unread {
		s.warn("remove the bytes of a File", s.store.dropOwner(f.Owner))
	}
	return nil
}

// release ends a download that f.readers counts.
func (s *Server) release(f *file) {
	s.mu.Lock()
	f.readers--
	last := f.readers == 0 && s.files[f.ID] != f
	s.mu.Unlock()
	if last {
		s.warn("remove the bytes of a File", s.store.dropOwner(f.Owner))
	}
}
