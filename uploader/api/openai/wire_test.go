package openai_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
)

// request is one request as the server received it.
type request struct {
	*http.Request
	body []byte
}

// record answers every request with object and returns what arrived.
func record(t testing.TB, cfg openai.Config, object any) (*openai.Backend, func() []request) {
	var mu sync.Mutex
	var seen []request
	b := fake(t, cfg, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		seen = append(seen, request{r, body})
		mu.Unlock()
		answer(w, http.StatusOK, object)
	})
	return b, func() []request {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func TestPartOnTheWire(t *testing.T) {
	b, seen := record(t, openai.Config{}, object{"id": "part_1", "object": "upload.part", "created_at": 1, "upload_id": "upload_1"})
	content := make([]byte, 1<<20+17)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	id, err := b.AddPart(t.Context(), "upload_1", section(content))
	require.NoError(t, err)
	require.Equal(t, "part_1", id)

	require.Len(t, seen(), 1)
	got := seen()[0]
	require.Equal(t, http.MethodPost, got.Method)
	require.Equal(t, "/v1/uploads/upload_1/parts", got.URL.Path)
	require.Empty(t, got.TransferEncoding, "not chunked")
	require.Equal(t, int64(len(got.body)), got.ContentLength)
	require.Equal(t, strconv.Itoa(len(got.body)), got.Header.Get("Content-Length"))
	require.Equal(t, "Bearer "+key, got.Header.Get("Authorization"))

	kind, params, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/form-data", kind)
	form := multipart.NewReader(bytes.NewReader(got.body), params["boundary"])
	field, err := form.NextRawPart()
	require.NoError(t, err)
	require.Equal(t, "data", field.FormName())
	require.Equal(t, "part", field.FileName())
	require.Equal(t, "application/octet-stream", field.Header.Get("Content-Type"))
	data, err := io.ReadAll(field)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, data), "the content differs")
	_, err = form.NextRawPart()
	require.ErrorIs(t, err, io.EOF)
}

func TestCreateOnTheWire(t *testing.T) {
	b, seen := record(t, openai.Config{}, object{"id": "upload_1", "object": "upload", "bytes": 6, "status": "pending", "created_at": 1719127000, "expires_at": 1719127100})
	before := time.Now()
	up, err := b.Create(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, "upload_1", up.ID)
	require.Equal(t, time.Unix(1719127000, 0), up.CreatedAt, "by the API's clock, which is years behind")
	require.WithinRange(t, up.ExpiresAt, before.Add(100*time.Second), time.Now().Add(100*time.Second))
	expiring := spec
	expiring.Expires = 2 * time.Hour
	_, err = b.Create(t.Context(), expiring)
	require.NoError(t, err)

	want := map[string]any{"filename": "train.jsonl", "purpose": "batch", "bytes": 6.0, "mime_type": "text/jsonl"}
	for i, got := range seen() {
		var body map[string]any
		require.NoError(t, json.Unmarshal(got.body, &body))
		require.Equal(t, want, body, "request %d", i)
		want["expires_after"] = map[string]any{"anchor": "created_at", "seconds": 7200.0}
	}
}

func TestCompleteOnTheWire(t *testing.T) {
	b, seen := record(t, openai.Config{}, object{
		"id": "upload_1", "object": "upload", "bytes": 6, "status": "completed",
		"file": object{"id": "file-1", "object": "file", "bytes": 6, "created_at": 1719186911, "filename": "train.jsonl", "purpose": "batch"},
	})
	file, err := b.Complete(t.Context(), "upload_1", []string{"part_b", "part_a"}, "0123")
	require.NoError(t, err)
	require.Equal(t, api.File{
		ID: "file-1", Filename: "train.jsonl", Purpose: "batch", Bytes: 6, CreatedAt: time.Unix(1719186911, 0),
	}, file)
	_, err = b.Complete(t.Context(), "upload_1", []string{"part_a"}, "")
	require.NoError(t, err)
	require.JSONEq(t, `{"part_ids":["part_b","part_a"],"md5":"0123"}`, string(seen()[0].body))
	require.JSONEq(t, `{"part_ids":["part_a"]}`, string(seen()[1].body))
}

func TestUploadWithoutExpiryLivesAnHour(t *testing.T) {
	b, _ := record(t, openai.Config{}, object{"id": "upload_1"})
	before := time.Now()
	up, err := b.Create(t.Context(), spec)
	require.NoError(t, err)
	require.False(t, up.ExpiresAt.Before(before.Add(time.Hour)))
	require.False(t, up.ExpiresAt.After(time.Now().Add(time.Hour)))
}

// TestOnlyConfigCounts sets every environment variable that the SDK would read.
func TestOnlyConfigCounts(t *testing.T) {
	for _, name := range []string{"API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"} {
		t.Setenv("OPENAI_"+name, "sk-from-the-environment")
	}
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
	t.Setenv("OPENAI_CUSTOM_HEADERS", "X-From: environment")

	created := object{"id": "upload_1", "object": "upload"}
	bare, seen := record(t, openai.Config{Key: openai.StaticKey("")}, created)
	_, err := bare.Create(t.Context(), spec)
	require.NoError(t, err)
	for _, header := range []string{"Authorization", "OpenAI-Organization", "OpenAI-Project", "X-From"} {
		require.Empty(t, seen()[0].Header.Values(header), header)
	}

	full, seen := record(t, openai.Config{
		Organization: "org-1", Project: "proj_1", UserAgent: "uploadfs/1.0",
		Header: http.Header{"X-Custom": {"a", "b"}},
	}, created)
	_, err = full.Create(t.Context(), spec)
	require.NoError(t, err)
	got := seen()[0].Header
	require.Equal(t, []string{"Bearer " + key}, got.Values("Authorization"))
	require.Equal(t, []string{"org-1"}, got.Values("OpenAI-Organization"))
	require.Equal(t, []string{"proj_1"}, got.Values("OpenAI-Project"))
	require.Equal(t, []string{"uploadfs/1.0"}, got.Values("User-Agent"))
	require.Equal(t, []string{"a", "b"}, got.Values("X-Custom"))
}

// discard reads bodies without allocating and answers with a part.
func discard(w http.ResponseWriter, r *http.Request) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		if _, err := r.Body.Read(*buf); err != nil {
			break
		}
	}
	answer(w, http.StatusOK, object{"id": "part_1", "object": "upload.part"})
}

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 256<<10)
	return &b
}}

// allZeros is a file of any size.
type allZeros struct{}

func (allZeros) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

func TestPartIsNotHeldInMemory(t *testing.T) {
	b := fake(t, openai.Config{}, discard)
	send := func() {
		_, err := b.AddPart(t.Context(), "upload_1", io.NewSectionReader(allZeros{}, 0, 64<<20))
		require.NoError(t, err)
	}
	send() // opens the connection
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send()
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2<<20), "client and server together")
}

// TestConnectionsAreKept sends many more large parts at once than there are slots.
func TestConnectionsAreKept(t *testing.T) {
	const slots, senders, each = 4, 12, 4
	l := serve(t, true)
	b := newBackend(t, l.url, openai.Config{TLS: l.roots, Slots: slots})
	content := make([]byte, api.SmallPart+1)
	large := spec
	large.Bytes = senders * each * int64(len(content))
	up, err := b.Create(t.Context(), large)
	require.NoError(t, err)
	require.Equal(t, int64(1), l.conns.Load())
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for range each {
				if _, err := b.AddPart(t.Context(), up.ID, section(content)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	require.NoError(t, b.Cancel(t.Context(), up.ID))
	require.LessOrEqual(t, l.conns.Load(), int64(slots+1), "opened: one for each slot, and one for small calls")
	require.LessOrEqual(t, l.Stats().PeakParts, int64(slots))
	require.Equal(t, int64(senders*each), l.Stats().PartsStored)
}

func TestFindFilesTurnsPages(t *testing.T) {
	const total = 250
	file := func(i int) object { // the newest is 0; two are made in each second
		return object{"id": "file-" + strconv.Itoa(i), "object": "file", "bytes": 6, "purpose": "batch",
			"filename": "train.jsonl", "created_at": 10_000 - i/2}
	}
	var pages int
	b := fake(t, openai.Config{}, func(w http.ResponseWriter, r *http.Request) {
		pages++
		query := r.URL.Query()
		limit, err := strconv.Atoi(query.Get("limit"))
		if err != nil || query.Get("purpose") != "batch" || query.Get("order") != "desc" {
			t.Errorf("query %v", query)
		}
		first := 0
		if after := query.Get("after"); after != "" {
			if _, err := fmt.Sscanf(after, "file-%d", &first); err != nil {
				t.Error(err)
			}
			first++
		}
		data := []object{}
		for i := first; i < min(first+limit, total); i++ {
			data = append(data, file(i))
		}
		answer(w, http.StatusOK, object{"object": "list", "data": data, "has_more": first+limit < total})
	})
	found, err := b.FindFiles(t.Context(), spec, time.Unix(10_000-74, 1))
	require.NoError(t, err)
	require.Len(t, found, 150, "75 seconds, the first included")
	require.Equal(t, "file-0", found[0].ID)
	require.Equal(t, "file-149", found[149].ID)
	require.Equal(t, 2, pages, "no page beyond the time")

	found, err = b.FindFiles(t.Context(), spec, time.Unix(1, 0))
	require.NoError(t, err)
	require.Len(t, found, total)
	require.Equal(t, 2+3, pages)
}
