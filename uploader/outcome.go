package uploader

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"uploadfs/uploader/api"
	"uploadfs/uploader/journal"
)

// lookup looks for the File of an Upload whose Complete may have been carried out.
// A foreign File must never be taken for it: another mount, or a script, may upload
// the same name with the same size at the same time.
type lookup struct {
	u        *Uploader
	job      *job // of the commit
	uploadID string
	spec     api.Spec
	created  time.Time      // of the Upload
	parts    []journal.Part // that Complete has listed
}

// receipts are the acknowledged parts as records.
func receipts(parts []*part) []journal.Part {
	all := make([]journal.Part, len(parts))
	for i, p := range parts {
		all[i] = journal.Part{Off: p.off, Len: p.n, CRC: p.crc, ID: p.id}
	}
	return all
}

// find is the [api.OutcomeCheck] of the Upload. While it cannot tell, its error has
// [api.ErrOutcomeUnknown] in its chain.
func (l *lookup) find(ctx context.Context, q api.OutcomeQuestion) (api.File, bool, error) {
	candidates, err := l.settledCandidates(ctx, q)
	if err != nil {
		return api.File{}, false, fmt.Errorf("%w; %w", err, api.ErrOutcomeUnknown)
	}
	rivals, err := l.u.journal.Rivals(l.uploadID, l.spec, l.created.Add(-rivalry))
	if err != nil {
		return api.File{}, false, fmt.Errorf("%w; %w", err, api.ErrOutcomeUnknown)
	}
	if why := unclear(candidates, rivals > 0, q); why != nil {
		return api.File{}, false, l.unknown(why)
	}
	if len(candidates) == 0 {
		return api.File{}, false, nil // what the refusal says stands
	}
	file := candidates[0]
	same, err := l.contentMatches(ctx, file)
	switch {
	case err != nil:
		return api.File{}, false, fmt.Errorf("%w; %w", err, api.ErrOutcomeUnknown)
	case !same:
		return api.File{}, false, l.unknown(fmt.Errorf("%s, the one File that could be the result, has another content", file.ID))
	}
	l.u.log.Info("the answer to complete was lost, and the File is there", "upload", l.uploadID, "file", file.ID)
	return file, true, nil
}

// unknown is the error of a lookup that has found no answer, for people.
func (l *lookup) unknown(why error) error {
	return &api.Error{Op: "complete", UploadID: l.uploadID, Kind: api.Refused,
		Message: "its answer was lost: " + why.Error(), Err: errors.Join(why, api.ErrOutcomeUnknown)}
}

// unclear says why the candidates leave no answer, nil if they do.
func unclear(candidates []api.File, rivals bool, q api.OutcomeQuestion) error {
	ids := make([]string, len(candidates))
	for i, f := range candidates {
		ids[i] = f.ID
	}
	switch {
	case len(ids) > 1:
		return fmt.Errorf("%w: delete all but one at the API and retry: %s", errSeveral, listed(ids))
	case len(ids) == 1 && !q.AlreadyCompleted():
		return fmt.Errorf("then it was refused (%v), and %s may be its result: `uploadfs retry` sends it again", q.Refusal, ids[0])
	case len(ids) == 1 && rivals:
		return fmt.Errorf("%s may be its result or that of another Upload of the same name and size: `uploadfs retry` sends it again", ids[0])
	case len(ids) == 0 && q.AlreadyCompleted():
		return errors.New("the API says that the Upload is completed, and lists no File of it: `uploadfs retry` sends it again")
	}
	return nil
}

// settledCandidates lists until two listings agree. Where the API has said that the
// File exists, a listing without any candidate is not believed before the limit.
func (l *lookup) settledCandidates(ctx context.Context, q api.OutcomeQuestion) ([]api.File, error) {
	policy := l.u.opts.Listing
	end := time.Now().Add(policy.Limit)
	var before []api.File
	for first := true; ; first = false {
		now, err := l.candidates(ctx, q)
		if err != nil {
			return nil, err
		}
		agree := !first && slices.EqualFunc(before, now, func(a, b api.File) bool { return a.ID == b.ID })
		if agree && (len(now) > 0 || !q.AlreadyCompleted()) {
			return now, nil
		}
		next := time.Now().Add(policy.Apart)
		if next.After(end) {
			return now, nil
		}
		before = now
		api.NoteRetry(ctx, errors.New("the answer to complete was lost; its File is looked for"), next)
		l.job.pause()
		select {
		case <-time.After(policy.Apart):
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if l.job.resume(); err != nil {
			return nil, err
		}
	}
}

// candidates are the Files that could be the result, newest first: of this name,
// size and purpose, made between the Upload and the API's refusal, and of no other
// content of this mount.
func (l *lookup) candidates(ctx context.Context, q api.OutcomeQuestion) ([]api.File, error) {
	slot := l.u.schedule.ticket(opOther, small, l.job)
	defer slot.free()
	files, err := l.u.opts.Backend.FindFiles(api.WithAttempts(ctx, slot), l.spec, l.created)
	if err != nil {
		return nil, err
	}
	var free []api.File
	for _, f := range files {
		if !q.Answered.IsZero() && f.CreatedAt.After(q.Answered) {
			continue
		}
		claimed, err := l.u.journal.Claimed(f.ID)
		if err != nil {
			return nil, err
		}
		if !claimed {
			free = append(free, f)
		}
	}
	return free, nil
}

// contentMatches compares the File with the parts that were sent. Where the API
// gives the content to no client, the File counts as matching.
func (l *lookup) contentMatches(ctx context.Context, file api.File) (bool, error) {
	reader := api.FileReaderOf(l.u.opts.Backend)
	if reader == nil {
		return true, nil
	}
	w := &partChecker{parts: l.parts}
	err := reader.ReadFile(ctx, file.ID, w)
	switch {
	case w.differs:
		return false, nil
	case err != nil && api.KindOf(err) == api.Refused:
		return true, nil
	case err != nil:
		return false, err
	}
	return w.ended(), nil
}

// errDiffers ends the reading of a File at the first part that is another.
var errDiffers = errors.New("another content")

// partChecker compares what is written to it with parts, by their CRC-32C.
type partChecker struct {
	parts   []journal.Part // that are not compared yet
	n       int64          // bytes of the first one so far
	crc     uint32         // of them
	differs bool
}

func (c *partChecker) Write(b []byte) (int, error) {
	written := len(b)
	for len(b) > 0 {
		if len(c.parts) == 0 {
			c.differs = true // longer than what was sent
			return 0, errDiffers
		}
		k := min(int64(len(b)), c.parts[0].Len-c.n)
		c.crc = crc32.Update(c.crc, castagnoli, b[:k])
		c.n += k
		b = b[k:]
		if c.n == c.parts[0].Len {
			if c.crc != c.parts[0].CRC {
				c.differs = true
				return 0, errDiffers
			}
			c.parts, c.n, c.crc = c.parts[1:], 0, 0
		}
	}
	return written, nil
}

// ended reports whether all parts have been compared.
func (c *partChecker) ended() bool { return len(c.parts) == 0 }
