package localapi_test

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

	"uploadfs/uploader/localapi"
)

// failOnce fails the first request of an op at a stage, once so much of its body was read.
func failOnce(op localapi.Op, stage localapi.Stage, received int64, fault localapi.Fault) localapi.InterceptFunc {
	var fired atomic.Bool
	return func(p localapi.Point) *localapi.Fault {
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
	a := start(t, localapi.Options{})
	freshConnections(a)
	content := noise(1, 1<<20)
	newUpload := func() (id, part string) { id = a.create(len(content)); return id, a.part(id, content) }

	calls := map[localapi.Op]func() func() (answer, error){
		localapi.OpCreate: func() func() (answer, error) {
			return func() (answer, error) {
				return a.try("POST", "/v1/uploads", "application/json", bytes.NewReader([]byte(createBody(1))))
			}
		},
		localapi.OpPart: func() func() (answer, error) {
			id := a.create(len(content))
			return func() (answer, error) { return a.tryPart(id, content) }
		},
		localapi.OpComplete: func() func() (answer, error) {
			id, part := newUpload()
			return func() (answer, error) { return a.tryComplete(id, "", part) }
		},
		localapi.OpCancel: func() func() (answer, error) {
			id, _ := newUpload()
			return func() (answer, error) { return a.try("POST", "/v1/uploads/"+id+"/cancel", "", nil) }
		},
		localapi.OpFileCreate: func() func() (answer, error) {
			body := lines("--b", `Content-Disposition: form-data; name="purpose"`, "", "batch",
				"--b", `Content-Disposition: form-data; name="file"; filename="f"`, "", "abc", "--b--")
			return func() (answer, error) { return a.try("POST", "/v1/files", formType, bytes.NewReader([]byte(body))) }
		},
		localapi.OpFileList: func() func() (answer, error) {
			return func() (answer, error) { return a.try("GET", "/v1/files", "", nil) }
		},
		localapi.OpFileGet: func() func() (answer, error) {
			id := a.upload("batch", []byte("abc"))
			return func() (answer, error) { return a.try("GET", "/v1/files/"+id, "", nil) }
		},
		localapi.OpFileContent: func() func() (answer, error) {
			id := a.upload("batch", []byte("abc"))
			return func() (answer, error) { return a.try("GET", "/v1/files/"+id+"/content", "", nil) }
		},
		localapi.OpFileDelete: func() func() (answer, error) {
			id := a.upload("batch", []byte("abc"))
			return func() (answer, error) { return a.try("DELETE", "/v1/files/"+id, "", nil) }
		},
	}
	hasBody := map[localapi.Op]bool{
		localapi.OpCreate: true, localapi.OpPart: true, localapi.OpComplete: true, localapi.OpFileCreate: true,
	}
	for op, prepare := range calls {
		for _, stage := range []localapi.Stage{localapi.StageHead, localapi.StageBody, localapi.StageReceived, localapi.StageDone} {
			if stage == localapi.StageBody && !hasBody[op] {
				continue
			}
			t.Run(string(op)+"/"+string(stage), func(t *testing.T) {
				call := prepare()
				a.srv.SetIntercept(failOnce(op, stage, 0, localapi.Fault{Status: 503, Code: "busy", Message: "try later"}))
				got, err := call()
				require.NoError(t, err)
				require.Equal(t, "try later", got.refused(t, 503))

				call = prepare()
				a.srv.SetIntercept(failOnce(op, stage, 0, localapi.Fault{Reset: true}))
				_, err = call()
				require.Error(t, err)

				call = prepare()
				a.srv.SetIntercept(failOnce(op, stage, 0, localapi.Fault{Delay: time.Microsecond}))
				got, err = call()
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, got.status)
				a.srv.SetIntercept(nil)
			})
		}
	}
}

func TestFaultInTheMiddleOfAPart(t *testing.T) {
	a := start(t, localapi.Options{})
	content := noise(1, 4<<20)
	id := a.create(len(content))

	for _, received := range []int64{1, 2 << 20, 4 << 20} {
		a.srv.SetIntercept(failOnce(localapi.OpPart, localapi.StageBody, received, localapi.Fault{Reset: true}))
		_, err := a.tryPart(id, content)
		require.Error(t, err)

		a.srv.SetIntercept(failOnce(localapi.OpPart, localapi.StageBody, received,
			localapi.Fault{Status: 429, RetryAfter: 1500 * time.Millisecond, RawBody: "<html>slow down</html>"}))
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
	a := start(t, localapi.Options{Intercept: failOnce(localapi.OpFileList, localapi.StageDone, 0, localapi.Fault{Reset: true})})
	conn := a.dial()
	conn.write("GET /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "\r\n\r\n")
	_, err := conn.r.ReadByte()
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestLostAnswerToComplete(t *testing.T) {
	a := start(t, localapi.Options{})
	id := a.create(3)
	part := a.part(id, []byte("abc"))
	a.srv.SetIntercept(failOnce(localapi.OpComplete, localapi.StageDone, 0, localapi.Fault{Reset: true}))
	_, err := a.tryComplete(id, "", part)
	require.Error(t, err)
	require.Len(t, a.srv.Files(), 1)
	require.Contains(t, a.complete(id, "", part).refused(t, 400), "already completed")
}

func TestFailEvery(t *testing.T) {
	for mode, check := range map[localapi.FaultMode]func(t *testing.T, got answer, err error){
		localapi.FaultServerError: func(t *testing.T, got answer, err error) {
			require.NoError(t, err)
			require.NotEmpty(t, got.refused(t, 500))
		},
		localapi.FaultRateLimit: func(t *testing.T, got answer, err error) {
			require.NoError(t, err)
			require.NotEmpty(t, got.refused(t, 429))
			require.Equal(t, "3", got.header.Get("Retry-After"))
			require.Contains(t, string(got.body), `"rate_limit_exceeded"`)
		},
		localapi.FaultReset: func(t *testing.T, _ answer, err error) { require.Error(t, err) },
		localapi.FaultLost:  func(t *testing.T, _ answer, err error) { require.Error(t, err) },
	} {
		t.Run(string(mode), func(t *testing.T) {
			a := start(t, localapi.Options{Faults: localapi.Faults{FailEvery: 3, Mode: mode, RetryAfter: 3 * time.Second}})
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
			if mode == localapi.FaultLost {
				received = 6
			}
			require.Len(t, a.srv.Uploads()[0].Received, received)
			a.srv.SetFaults(localapi.Faults{FailEvery: 1, Mode: mode})
			got, err := a.try("GET", "/v1/files", "", nil)
			if mode == localapi.FaultRateLimit {
				require.Equal(t, "1", got.header.Get("Retry-After"))
			} else {
				check(t, got, err)
			}
			a.srv.SetFaults(localapi.Faults{})
			a.get("/v1/files").object(t, "object", "data", "first_id", "last_id", "has_more")
		})
	}
}

// TestLatencyAndRate runs without a network, on the fake clock of synctest, where waiting takes exactly as long as it
// should.
func TestLatencyAndRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency, rate = 20 * time.Millisecond, 1 << 20
		srv, err := localapi.Open(localapi.Options{
			Dir: t.TempDir(), Faults: localapi.Faults{Latency: latency, RatePerConnection: rate},
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
	var events []localapi.Event
	a := start(t, localapi.Options{Observe: func(e localapi.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}})
	file := a.upload("batch", []byte("abc"))
	a.get("/v1/files/" + file + "/content")
	a.get("/v1/nothing")
	require.NoError(t, a.srv.Close()) // an event may come after its answer

	var ops []localapi.Op
	for _, e := range events {
		ops = append(ops, e.Op)
		require.NotEmpty(t, e.RequestID)
		require.Positive(t, e.Duration)
	}
	require.Equal(t, []localapi.Op{
		localapi.OpCreate, localapi.OpPart, localapi.OpComplete, localapi.OpFileContent, localapi.OpUnknown,
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
