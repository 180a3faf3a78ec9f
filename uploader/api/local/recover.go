package local

import (
	"io/fs"
	"path"
	"time"
)

// partsOnDisk are the parts that were found, by owner and ID.
type partsOnDisk map[string]map[string]*part

// recover rebuilds the state from the directory and removes what no record names. No other goroutine uses s yet.
func (s *Server) recover() error {
	if err := s.clearTemp(); err != nil {
		return err
	}
	damaged := func(name string, err error) {
		s.opt.Log.Error("a damaged record was moved to "+damagedDir+"; its parts are kept", "record", name, "error", err)
	}
	err := readRecords(s.store, filesDir, filePrefix, func(id string, record *fileRecord) {
		record.ID = id
		s.lastSeq = max(s.lastSeq, record.Seq)
		s.publish(&file{fileRecord: *record})
	}, damaged)
	if err != nil {
		return err
	}
	err = readRecords(s.store, uploadsDir, uploadPrefix, func(id string, record *uploadRecord) {
		record.ID = id
		s.lastSeq = max(s.lastSeq, record.Seq)
		s.uploads[id] = &upload{uploadRecord: *record, parts: make(map[string]*part)}
	}, damaged)
	if err != nil {
		return err
	}
	s.finishCompletes()
	found, err := s.findParts()
	if err != nil {
		return err
	}
	if err := s.claimParts(found); err != nil {
		return err
	}
	return s.dropOrphans(found)
}

func (s *Server) clearTemp() error {
	entries, err := s.store.list(tmpDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := s.store.discard(path.Join(tmpDir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// finishCompletes marks Uploads as completed whose File was written just before the process died.
func (s *Server) finishCompletes() {
	for _, f := range s.ordered {
		u := s.uploads[f.Owner]
		if u != nil && u.Status == statusPending {
			u.Status, u.FileID, u.Parts = statusCompleted, f.ID, f.Parts
			s.warn("mark an Upload as completed", s.store.putRecord(uploadsDir, u.ID, &u.uploadRecord))
		}
	}
}

func (s *Server) findParts() (partsOnDisk, error) {
	found := make(partsOnDisk)
	owners, err := s.store.list(dataDir)
	if err != nil {
		return nil, err
	}
	for _, owner := range owners {
		id := owner.Name()
		if !owner.IsDir() || !validID(uploadPrefix, id) && !validID(filePrefix, id) {
			continue // a foreign directory
		}
		entries, err := s.store.list(path.Join(dataDir, id))
		if err != nil {
			return nil, err
		}
		found[id] = make(map[string]*part, len(entries))
		for _, entry := range entries {
			info, err := entry.Info()
			if err != nil {
				return nil, err
			}
			if info.Mode().Type() == fs.FileMode(0) && validID(partPrefix, entry.Name()) {
				found[id][entry.Name()] = &part{partRecord{entry.Name(), info.Size()}, info.ModTime()}
			}
		}
	}
	return found, nil
}

// claimParts assigns parts to Files and pending Uploads. Parts without an owner stay in found.
func (s *Server) claimParts(found partsOnDisk) error {
	for _, f := range s.ordered {
		for _, p := range f.Parts {
			onDisk := found[f.Owner][p.ID]
			if onDisk == nil || onDisk.Bytes != p.Bytes {
				f.Status, f.StatusDetails = statusError, "Bytes of this File were lost; upload it again."
			}
			delete(found[f.Owner], p.ID)
		}
	}
	for _, u := range s.uploads {
		if u.Status != statusPending {
			// The time of their arrival is not needed any more.
			for _, p := range u.Parts {
				u.received = append(u.received, &part{p, time.Time{}})
			}
			continue
		}
		if err := s.store.newOwner(u.ID); err != nil {
			return err
		}
		for id, p := range found[u.ID] {
			u.parts[id] = p
			u.received = append(u.received, p)
		}
		delete(found, u.ID)
	}
	return nil
}

// dropOrphans removes the parts without an owner, unless they may belong to a record that could not be read.
func (s *Server) dropOrphans(found partsOnDisk) error {
	damaged, err := s.store.list(damagedDir)
	if err != nil || len(damaged) > 0 {
		return err
	}
	owned := make(map[string]bool)
	for _, f := range s.ordered {
		owned[f.Owner] = true
	}
	for owner, parts := range found {
		if !owned[owner] {
			s.warn("remove parts that nothing needs", s.store.dropOwner(owner))
			continue
		}
		for id := range parts {
			s.warn("remove a part that nothing needs", s.store.dropPart(owner, id))
		}
	}
	return nil
}
