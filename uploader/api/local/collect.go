package local

import "time"

// janitor collects garbage until Close.
func (s *Server) janitor() {
	tick := time.NewTicker(s.opt.CollectEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.Collect()
		case <-s.done:
			return
		}
	}
}

// Collect removes the parts of expired Uploads, expired Files with their bytes, and the records of Uploads that ended
// long ago. The parts of cancelled Uploads and unlisted parts are removed at once, not here. The janitor calls Collect
// every Options.CollectEvery; a test that changes the clock may call it directly.
func (s *Server) Collect() {
	now := s.now()
	var expired, old []*upload
	var files []*file
	s.mu.Lock()
	for _, u := range s.uploads {
		switch {
		case u.Status == statusPending && !now.Before(u.ExpiresAt):
			expired = append(expired, u)
		case u.Status != statusPending && now.After(u.ExpiresAt.Add(rememberEnded)):
			old = append(old, u)
			delete(s.uploads, u.ID)
		}
	}
	for _, f := range s.ordered {
		if !f.gone && !s.isLive(f) {
			f.gone = true
			files = append(files, f)
		}
	}
	s.mu.Unlock()

	for _, u := range expired {
		s.expire(u)
	}
	for _, u := range old {
		s.warn("forget an old Upload", s.store.dropRecord(uploadsDir, u.ID))
	}
	for _, f := range files {
		s.warn("remove an expired File", s.remove(f))
	}
}

// expire ends an Upload that has expired, unless a complete that began before that is still under way.
func (s *Server) expire(u *upload) {
	if !u.ending.TryLock() {
		return
	}
	defer u.ending.Unlock()
	if u.Status == statusPending {
		s.warn("mark an Upload as expired", s.end(u, statusExpired))
	}
}
