package local_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

func TestUploadBecomesFile(t *testing.T) {
	now := newClock()
	a := start(t, local.Options{Now: now.now})
	one, two := noise(1, 70_000), noise(2, 300_000)
	whole := append(bytes.Clone(one), two...)

	created := a.postJSON("/v1/uploads", fmt.Sprintf(`{"filename":"../a b.jsonl","purpose":"batch","bytes":%d,
		"mime_type":"text/jsonl","expires_after":{"anchor":"created_at","seconds":3600}}`, len(whole))).object(t, uploadMembers...)
	id := created["id"].(string)
	require.Regexp(t, `^upload_[a-z2-7]{26}$`, id)
	require.Equal(t, map[string]any{
		"id": id, "object": "upload", "bytes": float64(len(whole)), "created_at": float64(now.now().Unix()),
		"filename": "../a b.jsonl", "purpose": "batch", "status": "pending",
		"expires_at": float64(now.now().Add(time.Hour).Unix()), "file": nil,
	}, created)

	// The order is that of part_ids, not that of arrival.
	second, first := a.part(id, two), a.part(id, one)
	now.advance(time.Minute)
	done := a.complete(id, strings.ToUpper(sum(whole)), first, second).object(t, uploadMembers...)
	file := done["file"].(map[string]any)
	require.Regexp(t, `^file-[a-z2-7]{26}$`, file["id"])
	require.Equal(t, map[string]any{
		"id": file["id"], "object": "file", "bytes": float64(len(whole)), "created_at": float64(now.now().Unix()),
		"filename": "../a b.jsonl", "purpose": "batch", "status": "processed",
		"expires_at": float64(now.now().Add(time.Hour).Unix()),
	}, file)
	require.Equal(t, "completed", done["status"])
	require.Equal(t, created["expires_at"], done["expires_at"])

	content := a.get("/v1/files/" + file["id"].(string) + "/content")
	require.Equal(t, http.StatusOK, content.status)
	require.True(t, bytes.Equal(whole, content.body))
	require.True(t, bytes.Equal(whole, a.stored(file["id"].(string))))

	uploads := a.srv.Uploads()
	require.Len(t, uploads, 1)
	require.Equal(t, "text/jsonl", uploads[0].MimeType)
	require.Equal(t, time.Hour, uploads[0].ExpiresAfter)
	require.Equal(t, []local.PartInfo{{ID: first, Bytes: int64(len(one))}, {ID: second, Bytes: int64(len(two))}}, uploads[0].Listed)
	require.Equal(t, []local.PartInfo{{ID: second, Bytes: int64(len(two))}, {ID: first, Bytes: int64(len(one))}}, uploads[0].Received)
	files := a.srv.Files()
	require.Len(t, files, 1)
	require.Equal(t, id, files[0].UploadID)
	require.Equal(t, uploads[0].Listed, files[0].Parts)
}

func TestCreateRefusals(t *testing.T) {
	a := start(t, local.Options{})
	for name, test := range map[string]struct{ body, message string }{
		"not JSON":          {`{`, "not a JSON object"},
		"not an object":     {`[]`, "not a JSON object"},
		"null":              {`null`, "not a JSON object"},
		"two objects":       {`{}{}`, "not a JSON object"},
		"no filename":       {`{"purpose":"batch","bytes":1,"mime_type":"a/b"}`, "Missing required parameter: 'filename'"},
		"empty filename":    {`{"filename":"","purpose":"batch","bytes":1,"mime_type":"a/b"}`, "'filename': empty"},
		"filename a number": {`{"filename":1,"purpose":"batch","bytes":1,"mime_type":"a/b"}`, "Invalid type for 'filename'"},
		"no purpose":        {`{"filename":"a","bytes":1,"mime_type":"a/b"}`, "Missing required parameter: 'purpose'"},
		"other purpose":     {`{"filename":"a","purpose":"fun","bytes":1,"mime_type":"a/b"}`, "'fun' is not one of ['fine-tune', 'assistants', "},
		"no bytes":          {`{"filename":"a","purpose":"batch","mime_type":"a/b"}`, "Missing required parameter: 'bytes'"},
		"null bytes":        {`{"filename":"a","purpose":"batch","bytes":null,"mime_type":"a/b"}`, "Missing required parameter: 'bytes'"},
		"bytes a string":    {`{"filename":"a","purpose":"batch","bytes":"1","mime_type":"a/b"}`, "Invalid type for 'bytes'"},
		"bytes a fraction":  {`{"filename":"a","purpose":"batch","bytes":1.5,"mime_type":"a/b"}`, "Invalid type for 'bytes'"},
		"bytes 0":           {`{"filename":"a","purpose":"batch","bytes":0,"mime_type":"a/b"}`, "greater than 0"},
		"bytes negative":    {`{"filename":"a","purpose":"batch","bytes":-1,"mime_type":"a/b"}`, "greater than 0"},
		"bytes over 8 GiB":  {`{"filename":"a","purpose":"batch","bytes":8589934593,"mime_type":"a/b"}`, "File is too large."},
		"no mime type":      {`{"filename":"a","purpose":"batch","bytes":1}`, "Missing required parameter: 'mime_type'"},
		"unknown parameter": {`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","sise":1}`, "Unknown parameter: 'sise'"},
		"other case":        {`{"Filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b"}`, "Unknown parameter: 'Filename'"},
		"expires_after a number": {`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":3600}`,
			"Invalid 'expires_after'"},
		"other anchor": {`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":{"anchor":"now","seconds":3600}}`,
			"must be 'created_at'"},
		"no anchor": {`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":{"seconds":3600}}`,
			"must be 'created_at'"},
		"no seconds": {`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":{"anchor":"created_at"}}`,
			"expected an integer"},
		"seconds too few": {`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":{"anchor":"created_at","seconds":3599}}`,
			"from 3600 to 2592000"},
		"seconds too many": {`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":{"anchor":"created_at","seconds":2592001}}`,
			"from 3600 to 2592000"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, a.postJSON("/v1/uploads", test.body).refused(t, http.StatusBadRequest), test.message)
		})
	}
	require.Empty(t, a.srv.Uploads())

	require.Contains(t, a.send("POST", "/v1/uploads", "text/plain", strings.NewReader("{}")).refused(t, 400), "text/plain")
	require.NotEmpty(t, a.postJSON("/v1/uploads", `{"filename":"`+strings.Repeat("x", 1<<20)+`"}`).refused(t, 413))
	chunked := a.send("POST", "/v1/uploads", "application/json", io.MultiReader(strings.NewReader(`{"filename":"`+strings.Repeat("x", 1<<20))))
	require.NotEmpty(t, chunked.refused(t, 413))

	for _, edge := range []string{
		`{"filename":"a","purpose":"batch","bytes":8589934592,"mime_type":"a/b","expires_after":null}`,
		`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":{"anchor":"created_at","seconds":3600}}`,
		`{"filename":"a","purpose":"batch","bytes":1,"mime_type":"a/b","expires_after":{"anchor":"created_at","seconds":2592000}}`,
	} {
		require.Equal(t, http.StatusOK, a.postJSON("/v1/uploads", edge).status)
	}
	for _, purpose := range []string{"assistants", "batch", "fine-tune", "vision", "user_data", "evals"} {
		a.createFor(purpose, 1)
	}
}

func TestCompleteRefusals(t *testing.T) {
	a := start(t, local.Options{})
	id := a.create(3)
	one, two := a.part(id, []byte("ab")), a.part(id, []byte("c"))
	foreign := a.part(a.create(3), []byte("abc"))

	for name, test := range map[string]struct{ body, message string }{
		"no list":       {`{}`, "Missing required parameter: 'part_ids'"},
		"empty list":    {`{"part_ids":[]}`, "list the parts of Upload " + id},
		"not a list":    {`{"part_ids":"` + one + `"}`, "Invalid type for 'part_ids'"},
		"unknown part":  {`{"part_ids":["part_x"]}`, "No such Part in Upload " + id + ": part_x"},
		"a path":        {`{"part_ids":["../../lock"]}`, "No such Part"},
		"foreign part":  {`{"part_ids":["` + foreign + `"]}`, "No such Part"},
		"repeated part": {`{"part_ids":["` + one + `","` + one + `"]}`, "listed more than once"},
		"too few bytes": {`{"part_ids":["` + one + `"]}`, "was declared with 3 bytes, but the listed parts have 2"},
		"md5 not hex":   {`{"part_ids":["` + one + `","` + two + `"],"md5":"` + strings.Repeat("g", 32) + `"}`, "32 hexadecimal digits"},
		"md5 short":     {`{"part_ids":["` + one + `","` + two + `"],"md5":"00"}`, "32 hexadecimal digits"},
		"md5 wrong":     {`{"part_ids":["` + one + `","` + two + `"],"md5":"` + sum([]byte("cab")) + `"}`, "The MD5 of Upload " + id},
		"misspelt":      {`{"part_ids":["` + one + `","` + two + `"],"MD5":""}`, "Unknown parameter: 'MD5'"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, a.postJSON("/v1/uploads/"+id+"/complete", test.body).refused(t, 400), test.message)
		})
	}
	require.Contains(t, a.complete("upload_x", "", one).refused(t, 404), "No such Upload object: upload_x")
	require.Empty(t, a.srv.Files())
	a.complete(id, sum([]byte("abc")), one, two).object(t, uploadMembers...) // no refusal has changed it
}

func TestUnlistedPartsMayCount(t *testing.T) {
	for _, count := range []bool{false, true} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			a := start(t, local.Options{CountUnlistedParts: count})
			id := a.create(3)
			a.part(id, []byte("xyz"))
			got := a.complete(id, "", a.part(id, []byte("abc")))
			if count {
				require.Contains(t, got.refused(t, 400), "all parts have 6")
			} else {
				require.Equal(t, http.StatusOK, got.status)
			}
		})
	}
}

func TestEndedUploadRefusesEverything(t *testing.T) {
	now := newClock()
	a := start(t, local.Options{Now: now.now})
	completed, cancelled, expired := a.create(1), a.create(1), a.create(1)
	a.part(expired, []byte("x"))
	now.advance(30 * time.Minute)
	a.part(expired, []byte("y")) // does not prolong it
	a.complete(completed, "", a.part(completed, []byte("x"))).object(t, uploadMembers...)
	o := a.send("POST", "/v1/uploads/"+cancelled+"/cancel", "", nil).object(t, uploadMembers...)
	require.Equal(t, "cancelled", o["status"])
	require.Nil(t, o["file"])
	now.advance(30 * time.Minute)

	for id, message := range map[string]string{
		completed: "is already completed", cancelled: "is already cancelled", expired: "has expired",
	} {
		part, err := a.tryPart(id, []byte("x"))
		require.NoError(t, err)
		for _, got := range []answer{
			part,
			a.complete(id, "", "part_x"),
			a.send("POST", "/v1/uploads/"+id+"/cancel", "", nil),
		} {
			require.Contains(t, got.refused(t, 400), "Upload "+id+" "+message)
		}
	}
	var statuses []string
	for _, u := range a.srv.Uploads() {
		statuses = append(statuses, u.Status)
	}
	require.Equal(t, []string{"completed", "cancelled", "expired"}, statuses)
	require.NotEmpty(t, a.send("POST", "/v1/uploads/upload_x/cancel", "", nil).refused(t, 404))
}

// TestPartIsRefusedWhenItsUploadEndsMeanwhile holds a part in the middle of its body while its Upload ends in each of the three ways.
func TestPartIsRefusedWhenItsUploadEndsMeanwhile(t *testing.T) {
	now := newClock()
	a := start(t, local.Options{Now: now.now})
	for message, end := range map[string]func(id, part string){
		"is already completed": func(id, part string) { a.complete(id, "", part).object(t, uploadMembers...) },
		"is already cancelled": func(id, _ string) {
			require.Equal(t, http.StatusOK, a.send("POST", "/v1/uploads/"+id+"/cancel", "", nil).status)
		},
		"has expired": func(string, string) { now.advance(time.Hour); a.srv.Collect() },
	} {
		t.Run(message, func(t *testing.T) {
			id := a.create(1)
			part := a.part(id, []byte("x"))
			halfway, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			a.srv.SetIntercept(func(p local.Point) *local.Fault {
				if p.Op == local.OpPart && p.Stage == local.StageBody {
					once.Do(func() { close(halfway); <-goOn })
				}
				return nil
			})
			late := make(chan answer, 1)
			go func() {
				got, err := a.tryPart(id, noise(1, 1<<20))
				if err != nil {
					got.body = []byte(err.Error())
				}
				late <- got
			}()
			<-halfway
			end(id, part)
			close(goOn)
			require.Contains(t, (<-late).refused(t, 400), "Upload "+id+" "+message)
			a.srv.SetIntercept(nil)
		})
	}
	require.Len(t, a.srv.Files(), 1)
}

func TestOneOfManyCompletesWins(t *testing.T) {
	a := start(t, local.Options{})
	content := noise(1, 1<<20)
	for range 5 {
		before := len(a.srv.Files())
		id := a.create(len(content))
		part := a.part(id, content)
		var wg sync.WaitGroup
		answers := make(chan answer, 8)
		for range cap(answers) {
			wg.Go(func() {
				if got, err := a.tryComplete(id, sum(content), part); err == nil {
					answers <- got
				}
			})
		}
		wg.Wait()
		close(answers)
		require.Len(t, answers, cap(answers))
		won := 0
		for got := range answers {
			if got.status == http.StatusOK {
				won++
			} else {
				require.Contains(t, got.refused(t, 400), "is already completed")
			}
		}
		require.Equal(t, 1, won)
		require.Len(t, a.srv.Files(), before+1)
	}
}

func TestPartsInParallel(t *testing.T) {
	a := start(t, local.Options{})
	const parts, size = 16, 100_000
	whole := noise(7, parts*size)
	id := a.create(len(whole))
	ids := make([]string, parts)
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() { ids[i] = a.part(id, whole[i*size:(i+1)*size]) })
	}
	wg.Wait()
	o := a.complete(id, sum(whole), ids...).object(t, uploadMembers...)
	require.True(t, bytes.Equal(whole, a.stored(o["file"].(map[string]any)["id"].(string))))
	stats := a.srv.Stats()
	require.EqualValues(t, parts, stats.PartsStored)
	require.EqualValues(t, len(whole), stats.PartBytes)
	require.Zero(t, stats.PartsInFlight)
	require.Positive(t, stats.PeakParts)
	require.EqualValues(t, parts, stats.Requests[local.OpPart])
}
