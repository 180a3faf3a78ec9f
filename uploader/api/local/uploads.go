package local

// uploadParams reads and checks what POST /v1/uploads declares.
func (s *Server) uploadParams(c *call) (*upload, error) {
	p, err := c.readJSON("filename", "purpose", "bytes", "mime_type", "expires_after")
	if err != nil {
		return nil, err
	}
	u := &upload{parts: make(map[string]*part)}
	if u.Filename, err = p.text("filename"); err != nil {
		return nil, err
	}
	if u.Purpose, err = p.text("purpose"); err != nil {
		return nil, err
	}
	if err := checkPurpose(u.Purpose); err != nil {
		return nil, err
	}
	if u.Bytes, err = p.integer("bytes"); err != nil {
		return nil, err
	}
	if u.Bytes <= 0 {
		return nil, badRequest("bytes", "Invalid 'bytes': it must be greater than 0.")
	}
	if u.Bytes > s.opt.MaxUploadBytes {
		return nil, tooLarge("bytes")
	}
	if u.MimeType, err = p.text("mime_type"); err != nil {
		return nil, err
	}
	u.ExpiresAfter, err = p.expiresAfter()
	return u, err
}

// createUpload answers POST /v1/uploads.
func (s *Server) createUpload(c *call) (any, error) {
	u, err := s.uploadParams(c)
	if err != nil {
		return nil, err
	}
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}
	u.ID, u.Status, u.CreatedAt = newID(uploadPrefix), statusPending, s.now()
	u.ExpiresAt = u.CreatedAt.Add(s.opt.UploadTTL)
	u.Seq = s.nextSeq()
	if err := s.store.newOwner(u.ID); err != nil {
		return nil, err
	}
	if err := s.store.putRecord(uploadsDir, u.ID, &u.uploadRecord); err != nil {
		s.warn("remove what a failed create left", s.store.dropOwner(u.ID))
		return nil, err
	}
	answer := u.object(nil)
	s.mu.Lock()
	s.uploads[u.ID] = u
	s.mu.Unlock()
	s.counters.uploadsCreated.Add(1)
	return answer, nil
}

// pendingUpload returns the Upload of an ID if it still takes parts.
func (s *Server) pendingUpload(id string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	if u == nil {
		return nil, noSuchUpload(id)
	}
	return u, s.checkPending(u)
}

// checkPending returns a refusal unless the Upload is pending. mu is held.
func (s *Server) checkPending(u *upload) error {
	if u.Status == statusPending && !s.now().Before(u.ExpiresAt) {
		return ended(u.ID, statusExpired) // the janitor records it later
	}
	if u.Status != statusPending {
		return ended(u.ID, u.Status)
	}
	return nil
}

// cancelUpload answers POST /v1/uploads/{id}/cancel.
func (s *Server) cancelUpload(c *call) (any, error) {
	u, err := s.pendingUpload(c.id)
	if err != nil {
		return nil, err
	}
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}
	u.ending.Lock()
	defer u.ending.Unlock()
	s.mu.Lock()
	err = s.checkPending(u)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := s.end(u, statusCancelled); err != nil {
		return nil, err
	}
	return u.object(nil), nil
}

// end ends an Upload without a File and removes its parts. u.ending is held.
func (s *Server) end(u *upload, status string) error {
	done := u.uploadRecord
	done.Status = status
	if err := s.store.putRecord(uploadsDir, u.ID, &done); err != nil {
		return err
	}
	s.mu.Lock()
	u.setEnd(&done)
	s.mu.Unlock()
	s.warn("remove the parts of an ended Upload", s.store.dropOwner(u.ID))
	return nil
}

// setEnd sets the fields that change when an Upload ends. The other fields are read without a lock, so it must not
// write them. ending and mu are held.
func (u *upload) setEnd(done *uploadRecord) {
	u.Status, u.FileID, u.Parts = done.Status, done.FileID, done.Parts
	u.parts = nil
}
