package local

import (
	"errors"
	"io"
	"mime"
)

// addPart answers POST /v1/uploads/{id}/parts.
func (s *Server) addPart(c *call) (any, error) {
	u, err := s.pendingUpload(c.id)
	if err != nil {
		return nil, err
	}
	defer s.counters.partBegins()()
	var received *spool
	err = c.readForm(s.opt.MaxPartBytes+maxFraming, func(form *formReader) (err error) {
		received, err = c.receivePart(form)
		return err
	})
	if received != nil {
		defer received.discard()
	}
	if err != nil {
		return nil, err
	}
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}
	p := &part{partRecord{newID(partPrefix), received.bytes}, s.now()}
	if err := s.storePart(u, p, received); err != nil {
		return nil, err
	}
	s.counters.partsStored.Add(1)
	s.counters.partBytes.Add(p.Bytes)
	return &partObject{ID: p.ID, Object: "upload.part", CreatedAt: p.created.Unix(), UploadID: u.ID}, nil
}

// receivePart reads a form of exactly one field, data.
func (c *call) receivePart(form *formReader) (*spool, error) {
	s := c.s
	field, err := form.NextField()
	if err == io.EOF {
		return nil, missing("data")
	}
	if err != nil {
		return nil, err
	}
	if field.Name != "data" {
		return nil, unknownParameter(field.Name)
	}
	if field.Filename == "" && !s.opt.AllowMissingFilename {
		return nil, notUnderstood()
	}
	if field.ContentType == "" && s.opt.RequirePartContentType {
		return nil, badRequest("data", "Invalid 'data': the form field has no Content-Type.")
	}
	received, err := c.receive(form, s.opt.MaxPartBytes, "data")
	if err != nil {
		return nil, err
	}
	switch field, err := form.NextField(); {
	case err == io.EOF:
		return received, nil
	case err != nil:
		return received, err
	default:
		return received, unknownParameter(field.Name)
	}
}

// storePart adds a received part to the Upload. It moves the bytes into place first, so that every part of the Upload
// has its bytes. A part that comes too late is removed again.
func (s *Server) storePart(u *upload, p *part, received *spool) error {
	moved := received.keep(u.ID, p.ID)
	s.mu.Lock()
	err := s.checkPending(u)
	if err == nil {
		err = moved // the end of an Upload removes the directory; that it has ended is the better reason
	}
	if err == nil {
		u.parts[p.ID] = p
		u.received = append(u.received, p)
	}
	s.mu.Unlock()
	if err != nil && moved == nil {
		s.warn("remove a part that came too late", s.store.dropPart(u.ID, p.ID))
	}
	return err
}

// readForm reads a multipart/form-data body of at most limit bytes, to its end.
func (c *call) readForm(limit int64, read func(*formReader) error) error {
	mediaType, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	boundary := params["boundary"]
	if err != nil || mediaType != "multipart/form-data" || boundary == "" || len(boundary) > 70 {
		return badRequest("", "Unsupported content type: '%s'. Send multipart/form-data with a boundary.",
			clip(c.r.Header.Get("Content-Type")))
	}
	if err := c.body.open(limit); err != nil {
		return err
	}
	withBuffer(func(buf []byte) {
		form := newFormReader(&c.body, boundary, buf)
		if err = read(form); err == nil {
			err = form.Finish()
		}
	})
	if errors.Is(err, errForm) {
		c.s.opt.Log.Debug("refuse a form", "error", err)
		return notUnderstood()
	}
	return err
}

// spool is a field's content in a temporary file.
type spool struct {
	st    *store
	tmp   string // empty once it is kept
	bytes int64
}

// receive writes the form's current field to a temporary file. The caller must discard what it gets.
func (c *call) receive(form *formReader, most int64, param string) (_ *spool, err error) {
	st := c.s.store
	f, tmp, err := st.newTemp()
	if err != nil {
		return nil, err
	}
	received := &spool{st: st, tmp: tmp}
	// The field is nearly all of the body. Writing it to space that is allocated takes half the time.
	reserved := min(c.r.ContentLength, most)
	reserve(f, reserved)
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			received.discard()
		}
	}()
	received.bytes, err = form.WriteTo(&capWriter{w: f, left: most, err: tooLarge(param)})
	if err != nil {
		return nil, err
	}
	if received.bytes == 0 {
		return nil, badRequest(param, "File is empty.")
	}
	if received.bytes < reserved {
		return received, f.Truncate(received.bytes) // frees the rest
	}
	return received, nil
}

func (r *spool) keep(owner, part string) error {
	if err := r.st.keep(r.tmp, owner, part); err != nil {
		return err
	}
	r.tmp = ""
	return nil
}

// discard removes the content unless it was kept.
func (r *spool) discard() {
	if r.tmp != "" {
		r.st.discard(r.tmp) // if this fails, the next Open removes it
	}
}
