package local

import (
	"crypto/md5"
	"encoding/hex"
	"io"
)

// completeParams reads what POST /v1/uploads/{id}/complete lists, and the MD5 ("" for none) in lower case.
func (c *call) completeParams() (ids []string, sum string, err error) {
	p, err := c.readJSON("part_ids", "md5")
	if err != nil {
		return nil, "", err
	}
	if err := p.into("part_ids", "an array of strings", &ids); err != nil {
		return nil, "", err
	}
	if !p.has("md5") {
		return ids, "", nil
	}
	if sum, err = p.text("md5"); err != nil {
		return nil, "", err
	}
	sum, err = checkMD5(sum)
	return ids, sum, err
}

// completeUpload answers POST /v1/uploads/{id}/complete. The Upload is completed once the File's record is written,
// even if the process dies before the answer is sent.
func (s *Server) completeUpload(c *call) (any, error) {
	u, err := s.pendingUpload(c.id)
	if err != nil {
		return nil, err
	}
	ids, sum, err := c.completeParams()
	if err != nil {
		return nil, err
	}
	if err := c.at(StageReceived); err != nil {
		return nil, err
	}

	u.ending.Lock()
	defer u.ending.Unlock()
	listed, err := s.chooseParts(u, ids)
	if err != nil {
		return nil, err
	}
	if sum != "" && !s.opt.TrustMD5 {
		if err := s.checkContent(c, u, listed, sum); err != nil {
			return nil, err
		}
	}
	f := s.newFile(u, listed)
	done := u.uploadRecord // it does not change while ending is held
	done.Status, done.FileID, done.Parts = statusCompleted, f.ID, listed
	if err := s.store.putRecord(filesDir, f.ID, &f.fileRecord); err != nil {
		return nil, err
	}
	if err := s.store.putRecord(uploadsDir, u.ID, &done); err != nil {
		s.warn("take back the File of a failed complete", s.store.dropRecord(filesDir, f.ID))
		return nil, err
	}

	s.mu.Lock()
	unlisted := unlistedParts(u.received, listed)
	u.setEnd(&done)
	s.publish(f)
	s.mu.Unlock()
	s.counters.filesCreated.Add(1)
	for _, id := range unlisted {
		s.warn("remove an unlisted part", s.store.dropPart(u.ID, id))
	}
	return done.object(f.object(c.faults)), nil
}

// chooseParts returns the listed parts in their order. It checks that they belong to the Upload and have its size.
func (s *Server) chooseParts(u *upload, ids []string) ([]partRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkPending(u); err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, badRequest("part_ids", "Invalid 'part_ids': list the parts of Upload %s.", u.ID)
	}
	listed := make([]partRecord, 0, len(ids))
	seen := make(map[string]bool, len(ids))
	var total int64
	for _, id := range ids {
		p := u.parts[id]
		if p == nil {
			return nil, badRequest("part_ids", "No such Part in Upload %s: %s", u.ID, clip(id))
		}
		if seen[id] {
			return nil, badRequest("part_ids", "Part %s is listed more than once.", id)
		}
		seen[id] = true
		listed = append(listed, p.partRecord)
		total += p.Bytes
	}
	what := "the listed parts"
	if s.opt.CountUnlistedParts {
		what, total = "all parts", 0
		for _, p := range u.received {
			total += p.Bytes
		}
	}
	if total != u.Bytes {
		return nil, badRequest("part_ids", "Upload %s was declared with %d bytes, but %s have %d.", u.ID, u.Bytes, what, total)
	}
	return listed, nil
}

// checkContent compares the MD5 of the parts. It reads them again: the digest covers the content in the listed order,
// which is known only now, so digests of single parts do not help.
func (s *Server) checkContent(c *call, u *upload, parts []partRecord, want string) error {
	hash := md5.New()
	content := newContentReader(s.store, u.ID, parts)
	defer content.Close()
	var err error
	withBuffer(func(buf []byte) {
		for n := 0; err == nil && !c.stopped(); {
			n, err = content.Read(buf)
			hash.Write(buf[:n])
		}
	})
	switch got := hex.EncodeToString(hash.Sum(nil)); {
	case err == nil:
		return closing()
	case err != io.EOF:
		return err
	case got != want:
		return badRequest("md5", "The MD5 of Upload %s is %s, not %s.", u.ID, got, want)
	}
	return nil
}

// unlistedParts returns the IDs of those received but not listed.
func unlistedParts(received []*part, listed []partRecord) []string {
	keep := make(map[string]bool, len(listed))
	for _, p := range listed {
		keep[p.ID] = true
	}
	var ids []string
	for _, p := range received {
		if !keep[p.ID] {
			ids = append(ids, p.ID)
		}
	}
	return ids
}
