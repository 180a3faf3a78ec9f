package local_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// failOnce fails the first request of an op at a stage, after that many bytes of its body were read.
func failOnce(op local.Op, stage local.Stage, received int64, fault local.Fault) local.InterceptFunc {
	var fired atomic.Bool
	return func(p local.Point) *local.Fault {
		if p.Op == op && p.Stage == stage && p.Received >= received && fired.CompareAndSwap(false, true) {
			return &fault
		}
		return nil
	}
}

// freshConnections makes every request open a connection, so that Go's client does not repeat a GET or DELETE by
// itself when a kept one breaks.
func freshConnections(a *api) { a.client.Transport.(*http.Transport).DisableKeepAlives = true }

func TestInterceptAtEveryStageOfEveryCall(t *testing.T) {
	a := start(t, local.Options{})
	freshConnections(a)
	content := noise(1, 1<<20)
	newUpload := func() (id, part string) { id = a.create(len(content)); return id, a.part(id, content) }

	calls := map[local.Op]func() func() (answer, error){
		local.OpCreate: func() func() (answer, error) {
			return func() (answer, error) {
				return a.try("POST", "/v1/uploads", "application/json", bytes.NewReader([]byte(createBody(1))))
			}
		},
		local.OpPart: func() func() (answer, error) {
			id := a.create(len(content))
			return func() (answer, error) { return a.tryPart(id, content) }
		},
		local.OpComplete: func() func() (answer, error) {
			id, part := newUpload()
			return func() (answer, error) { return a.tryComplete(id, "", part) }
		},
		local.OpCancel: func() func() (answer, error) {
			id, _ := newUpload()
			return func() (answer, error) { return a.try("POST", "/v1/uploads/"+id+"/cancel", "", nil) }
		},
		local.OpFileCreate: func() func() (answer, error) {
			body := lines("--b", `Content-Disposition: form-data; name="purpose"`, "", "batch",
				"--b", `Content-Disposition: form-data; name="file"; filename="f"`, "", "abc", "--b--")
			return func() (answer, error) { return a.try("POST", "/v1/files", formType, bytes.NewReader([]byte(body))) }
		},
		local.OpFileList: func() func() (answer, error) {
			return func() (answer, error) { return a.try("GET", "/v1/files", "", nil) }
		},
		local.OpFileGet: func() func() (answer, error) {
			id := a.upload("batch", []byte("abc"))
			return func() (answer, error) { return a.try("GET", "/v1/files/"+id, "", nil) }
		},
		local.OpFileContent: func() func() (answer, error) {
			id := a.upload("batch", []byte("abc"))
			return func() (answer, error) { return a.try("GET", "/v1/files/"+id+"/content", "", nil) }
		},
		local.OpFileDelete: func() func() (answer, error) {
			id := a.upload("batch", []byte("abc"))
			return func() (answer, error) { return a.try("DELETE", "/v1/files/"+id, "", nil) }
		},
	}
	hasBody := map[local.Op]bool{
		local.OpCreate: true, local.OpPart: true, local.OpComplete: true, local.OpFileCreate: true,
	}
	for op, prepare := range calls {
		for _, stage := range []local.Stage{local.StageHead, local.StageBody, local.StageReceived, local.StageDone} {
			if stage == local.StageBody && !hasBody[op] {
				continue
			}
			t.Run(string(op)+"/"+string(stage), func(t *testing.T) {
				call := prepare()
				a.srv.SetIntercept(failOnce(op, stage, 0, local.Fault{Status: 503, Code: "busy", Message: "try later"}))
				got, err := call()
				require.NoError(t, err)
				require.Equal(t, "try later", got.refused(t, 503))

				call = prepare()
				a.srv.SetIntercept(failOnce(op, stage, 0, local.Fault{Reset: true}))
				_, err = call()
				require.Error(t, err)

				call = prepare()
				a.srv.SetIntercept(failOnce(op, stage, 0, local.Fault{Delay: time.Microsecond}))
				got, err = call()
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, got.status)
				a.srv.SetIntercept(nil)
			})
		}
	}
}

func TestFaultInTheMiddleOfAPart(t *testing.T) {
	a := start(t, local.Options{})
	content := noise(1, 4<<20)
	id := a.create(len(content))

	for _, received := range []int64{1, 2 << 20, 4 << 20} {
		a.srv.SetIntercept(failOnce(local.OpPart, local.StageBody, received, local.Fault{Reset: true}))
		_, err := a.tryPart(id, content)
		require.Error(t, err)

		a.srv.SetIntercept(failOnce(local.OpPart, local.StageBody, received,
			local.Fault{Status: 429, RetryAfter: 1500 * time.Millisecond, RawBody: "<html>slow down</html>"}))
		got, err := a.tryPart(id, content)
		require.NoError(t, err)
		require.Equal(t, 429, got.status)
		require.Equal(t, "2", got.header.Get("Retry-After"))
		require.Equal(t, "text/html", got.header.Get("Content-Type"))
		require.Equal(t, "<html>slow down</html>", string(got.body))
	}
	require.Empty(t, a.srv.Uploads()[0].Received)
	a.complete(id, sum(content), a.part(id, content)).object(t, uploadMembers...)
}

// A reset is a reset, not an orderly end.
func TestResetIsSeenAsSuch(t *testing.T) {
	a := start(t, local.Options{Intercept: failOnce(local.OpFileList, local.StageDone, 0, local.Fault{Reset: true})})
	conn := a.dial()
	conn.write("GET /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "\r\n\r\n")
	_, err := conn.r.ReadByte()
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestLostAnswerToComplete(t *testing.T) {
	a := start(t, local.Options{})
	id := a.create(3)
	part := a.part(id, []byte("abc"))
	a.srv.SetIntercept(failOnce(local.OpComplete, local.StageDone, 0, local.Fault{Reset: true}))
	_, err := a.tryComplete(id, "", part)
	require.Error(t, err)
	require.Len(t, a.srv.Files(), 1)
	require.Contains(t, a.complete(id, "", part).refused(t, 400), "already completed")
}

func TestFailEvery(t *testing.T) {
	for mode, check := range map[local.FaultMode]func(t *testing.T, got answer, err error){
		local.FaultServerError: func(t *testing.T, got answer, err error) {
			require.NoError(t, err)
			require.NotEmpty(t, got.refused(t, 500))
		},
		local.FaultRateLimit: func(t *testing.T, got answer, err error) {
			require.NoError(t, err)
			require.NotEmpty(t, got.refused(t, 429))
			require.Equal(t, "3", got.header.Get("Retry-After"))
			require.Contains(t, string(got.body), `"rate_limit_exceeded"`)
		},
		local.FaultReset: func(t *testing.T, _ answer, err error) { require.Error(t, err) },
		local.FaultLost:  func(t *testing.T, _ answer, err error) { require.Error(t, err) },
	} {
		t.Run(string(mode), func(t *testing.T) {
			a := start(t, local.Options{Faults: local.Faults{FailEvery: 3, Mode: mode, RetryAfter: 3 * time.Second}})
			freshConnections(a)
			id := a.create(1 << 20) // the first
			content := noise(1, 1<<20)
			for n := 2; n <= 7; n++ {
				got, err := a.tryPart(id, content)
				if n%3 == 0 {
					check(t, got, err)
				} else {
					require.NoError(t, err)
					require.Equal(t, http.StatusOK, got.status)
				}
			}
			received := 4
			if mode == local.FaultLost {
				received = 6
			}
			require.Len(t, a.srv.Uploads()[0].Received, received)
			a.srv.SetFaults(local.Faults{FailEvery: 1, Mode: mode})
			got, err := a.try("GET", "/v1/files", "", nil)
			if mode == local.FaultRateLimit {
				require.Equal(t, "1", got.header.Get("Retry-After"))
			} else {
				check(t, got, err)
			}
			a.srv.SetFaults(local.Faults{})
			a.get("/v1/files").object(t, "object", "data", "first_id", "last_id", "has_more")
		})
	}
}

// TestLatencyAndRate runs without a network, on the fake clock of synctest, where waits are exact.
func TestLatencyAndRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency, rate = 20 * time.Millisecond, 1 << 20
		srv, err := local.Open(local.Options{
			Dir: t.TempDir(), Faults: local.Faults{Latency: latency, RatePerConnection: rate},
		})
		require.NoError(t, err)
		defer srv.Close()
		content := noise(1, 3*rate)
		took := func(method, path, contentType string, body []byte) (time.Duration, *httptest.ResponseRecorder) {
			req := httptest.NewRequest(method, path, bytes.NewReader(body))
			req.Header.Set("Content-Type", contentType)
			w := httptest.NewRecorder()
			began := time.Now()
			srv.ServeHTTP(w, req)
			require.Equal(t, http.StatusOK, w.Code, "%s", w.Body)
			return time.Since(began), w
		}
		body := []byte(lines("--b", `Content-Disposition: form-data; name="purpose"`, "", "batch",
			"--b", `Content-Disposition: form-data; name="file"; filename="f"`, "", string(content), "--b--"))
		d, w := took("POST", "/v1/files", formType, body)
		require.InDelta(t, latency+time.Duration(len(body))*time.Second/rate, d, float64(time.Microsecond))
		var file struct{ ID string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &file))
		d, w = took("GET", "/v1/files/"+file.ID+"/content", "", nil)
		require.InDelta(t, latency+3*time.Second, d, float64(time.Microsecond))
		require.True(t, bytes.Equal(content, w.Body.Bytes()))
	})
}

func TestObserveAndStats(t *testing.T) {
	var mu sync.Mutex
	var events []local.Event
	a := start(t, local.Options{Observe: func(e local.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}})
	file := a.upload("batch", []byte("abc"))
	a.get("/v1/files/" + file + "/content")
	a.get("/v1/nothing")
	require.NoError(t, a.srv.Close()) // an event may come after its answer

	var ops []local.Op
	for _, e := range events {
		ops = append(ops, e.Op)
		require.NotEmpty(t, e.RequestID)
		require.Positive(t, e.Duration)
	}
	require.Equal(t, []local.Op{
		local.OpCreate, local.OpPart, local.OpComplete, local.OpFileContent, local.OpUnknown,
	}, ops)
	require.Equal(t, a.srv.Uploads()[0].ID, events[1].ID)
	require.Greater(t, events[1].Received, int64(3))
	require.EqualValues(t, 3, events[3].Sent)
	require.Equal(t, 404, events[4].Status)
	require.ErrorContains(t, events[4].Err, "Invalid URL")

	stats := a.srv.Stats()
	require.EqualValues(t, 1, stats.Connections)
	require.EqualValues(t, 1, stats.UploadsCreated)
	require.EqualValues(t, 1, stats.FilesCreated)
	require.EqualValues(t, 1, stats.PeakParts)
	require.EqualValues(t, 3, stats.PartBytes)
	require.Greater(t, stats.BodyBytes, stats.PartBytes)
}

// TestListLag checks that a File is listed late, and known to other calls at once.
func TestListLag(t *testing.T) {
	now := newClock()
	a := start(t, local.Options{Now: now.now, Faults: local.Faults{ListLag: 3 * time.Second}})
	listed := func() int {
		list := a.get("/v1/files").object(t, "object", "data", "first_id", "last_id", "has_more")
		return len(list["data"].([]any))
	}
	first := a.upload("batch", []byte("abc"))
	a.get("/v1/files/"+first).object(t, fileMembers...)
	now.advance(2 * time.Second)
	a.upload("batch", []byte("def"))
	require.Zero(t, listed())
	now.advance(time.Second)
	require.Equal(t, 1, listed())
	a.srv.SetFaults(local.Faults{})
	require.Equal(t, 2, listed())
}

func TestNullBytes(t *testing.T) {
	a := start(t, local.Options{Faults: local.Faults{NullBytes: true}})
	id := a.create(3)
	completed := a.complete(id, "", a.part(id, []byte("abc"))).object(t, uploadMembers...)
	require.EqualValues(t, 3, completed["bytes"], "the Upload's size was declared")
	file := completed["file"].(map[string]any)
	list := a.get("/v1/files").object(t, "object", "data", "first_id", "last_id", "has_more")
	one := a.get("/v1/files/"+file["id"].(string)).object(t, fileMembers...)
	for _, o := range []any{file, list["data"].([]any)[0], one} {
		bytes, has := o.(map[string]any)["bytes"]
		require.True(t, has)
		require.Nil(t, bytes)
	}
	require.Equal(t, "abc", string(a.stored(file["id"].(string))))
}

// TestDate checks that answers and objects have their times from one clock.
func TestDate(t *testing.T) {
	now := newClock()
	a := start(t, local.Options{Now: now.now})
	id := a.create(3)
	part := a.part(id, []byte("abc"))
	require.Equal(t, http.StatusOK, a.complete(id, "", part).status)
	now.advance(90 * time.Minute)
	again := a.complete(id, "", part)
	require.Contains(t, again.refused(t, 400), "already completed")
	require.Equal(t, now.now().UTC().Format(http.TimeFormat), again.header.Get("Date"))
}
