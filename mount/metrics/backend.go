package metrics

import (
	"context"
	"io"
	"sync"
	"time"

	"uploadfs/uploader/api"
)

// The names of calls and results in labels.
const (
	callCreate   = "create"
	callPart     = "part"
	callComplete = "complete"
	callCancel   = "cancel"
	callFind     = "find"

	resultSuccess = "success"
	resultFailure = "failure" // of a hook; that of a call is the Kind of its error
)

// Attempts counts each attempt of a call. It stands below the retries.
func (m *Metrics) Attempts(inner api.Backend) api.Backend { return &attempts{inner, m} }

type attempts struct {
	inner api.Backend
	m     *Metrics
}

// Unwrap returns the decorated Backend, see [api.FileReaderOf].
func (a *attempts) Unwrap() api.Backend { return a.inner }

// ended counts an attempt that ended with err.
func (a *attempts) ended(call string, err error) {
	result := resultSuccess
	if err != nil {
		result = api.KindOf(err).String()
	}
	a.m.attempts.WithLabelValues(call, result).Inc()
}

func (a *attempts) Create(ctx context.Context, spec api.Spec) (api.Upload, error) {
	up, err := a.inner.Create(ctx, spec)
	a.ended(callCreate, err)
	return up, err
}

// AddPart also counts the bytes as they are acknowledged.
func (a *attempts) AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (string, error) {
	began, acked := time.Now(), int64(0)
	progress := func(n int64) {
		if n < acked { // it begins again
			a.m.resent.Add(float64(acked))
			acked = 0
		}
		a.m.sent.Add(n - acked)
		acked = n
		api.NoteProgress(ctx, n)
	}
	id, err := a.inner.AddPart(api.WithProgress(ctx, progress), uploadID, body)
	a.ended(callPart, err)
	if err != nil {
		a.m.resent.Add(float64(acked))
		return id, err
	}
	a.m.parts.Inc()
	a.m.partTime.Observe(time.Since(began).Seconds())
	return id, nil
}

func (a *attempts) Complete(ctx context.Context, uploadID string, partIDs []string, md5 string) (api.File, error) {
	file, err := a.inner.Complete(ctx, uploadID, partIDs, md5)
	a.ended(callComplete, err)
	return file, err
}

func (a *attempts) Cancel(ctx context.Context, uploadID string) error {
	err := a.inner.Cancel(ctx, uploadID)
	a.ended(callCancel, err)
	return err
}

func (a *attempts) FindFiles(ctx context.Context, spec api.Spec, since time.Time) ([]api.File, error) {
	files, err := a.inner.FindFiles(ctx, spec, since)
	a.ended(callFind, err)
	return files, err
}

// Calls counts retries, Files, and what was sent in vain. It stands above the retries.
func (m *Metrics) Calls(inner api.Backend) api.Backend {
	return &calls{inner: inner, m: m, uploads: map[string]*sentUpload{}}
}

type calls struct {
	inner api.Backend
	m     *Metrics

	mu      sync.Mutex
	uploads map[string]*sentUpload // those that may get parts or become Files
}

// sentUpload is what this process has sent to an Upload.
type sentUpload struct {
	expires time.Time
	parts   map[string]int64 // bytes, by part ID
}

// assumedLife is that of an Upload which an earlier process has declared.
const assumedLife = 24 * time.Hour

// Unwrap returns the decorated Backend, see [api.FileReaderOf].
func (c *calls) Unwrap() api.Backend { return c.inner }

// noted has the retries of a call counted.
func (c *calls) noted(ctx context.Context, call string) context.Context {
	return api.WithRetryNote(ctx, func(err error, next time.Time) {
		if err != nil {
			c.m.retries.WithLabelValues(call).Inc()
		}
		api.NoteRetry(ctx, err, next)
	})
}

func (c *calls) Create(ctx context.Context, spec api.Spec) (api.Upload, error) {
	up, err := c.inner.Create(c.noted(ctx, callCreate), spec)
	if err == nil {
		c.created(up)
	}
	return up, err
}

// created begins to count what an Upload gets, and gives up those that have expired.
func (c *calls) created(up api.Upload) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for id, u := range c.uploads {
		if now.After(u.expires) {
			c.dropped(id)
		}
	}
	c.uploads[up.ID] = &sentUpload{expires: up.ExpiresAt, parts: map[string]int64{}}
}

// dropped counts what was sent to an Upload as sent in vain. mu is held.
func (c *calls) dropped(id string) {
	if u := c.uploads[id]; u != nil {
		for _, n := range u.parts {
			c.m.resent.Add(float64(n))
		}
		delete(c.uploads, id)
	}
}

func (c *calls) AddPart(ctx context.Context, uploadID string, body *io.SectionReader) (string, error) {
	id, err := c.inner.AddPart(c.noted(ctx, callPart), uploadID, body)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		u := c.uploads[uploadID]
		if u == nil {
			u = &sentUpload{expires: time.Now().Add(assumedLife), parts: map[string]int64{}}
			c.uploads[uploadID] = u
		}
		u.parts[id] = body.Size()
	}
	return id, err
}

func (c *calls) Complete(ctx context.Context, uploadID string, partIDs []string, md5 string) (api.File, error) {
	file, err := c.inner.Complete(c.noted(ctx, callComplete), uploadID, partIDs, md5)
	if err == nil {
		c.m.files.Inc()
		c.mu.Lock()
		defer c.mu.Unlock()
		if u := c.uploads[uploadID]; u != nil {
			for _, id := range partIDs {
				delete(u.parts, id) // it is part of the File
			}
			c.dropped(uploadID)
		}
	}
	return file, err
}

func (c *calls) Cancel(ctx context.Context, uploadID string) error {
	err := c.inner.Cancel(c.noted(ctx, callCancel), uploadID)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped(uploadID)
	return err
}

func (c *calls) FindFiles(ctx context.Context, spec api.Spec, since time.Time) ([]api.File, error) {
	return c.inner.FindFiles(c.noted(ctx, callFind), spec, since)
}
