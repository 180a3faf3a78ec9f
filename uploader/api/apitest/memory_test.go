package apitest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/apitest"
)

func TestSuite(t *testing.T) {
	apitest.Suite(t, func(t *testing.T) apitest.Fixture { return apitest.NewMemory().Fixture() })
}

var spec = api.Spec{Filename: "a.jsonl", Purpose: "batch", MimeType: "text/jsonl", Bytes: 6}

func body() *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader([]byte("abcdef")), 0, 6)
}

func TestFailuresAreUsedInOrder(t *testing.T) {
	m := apitest.NewMemory()
	m.Fail(apitest.OpCreate, apitest.Before, apitest.ServerError(), nil, apitest.Quota())
	_, err := m.Create(t.Context(), spec)
	require.EqualError(t, err, "create: The server is overloaded.")
	_, err = m.Create(t.Context(), spec)
	require.NoError(t, err)
	_, err = m.Create(t.Context(), spec)
	require.Equal(t, api.Quota, api.KindOf(err))
	_, err = m.Create(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, 4, m.Counts().Calls[apitest.OpCreate])
	require.Equal(t, 2, m.Counts().Created)
}

func TestStages(t *testing.T) {
	m := apitest.NewMemory()
	up, err := m.Create(t.Context(), spec)
	require.NoError(t, err)

	m.Fail(apitest.OpPart, apitest.MidBody, apitest.Broken())
	_, err = m.AddPart(t.Context(), up.ID, body())
	require.EqualError(t, err, "part "+up.ID+": no answer: connection reset by peer")
	require.Zero(t, m.Counts().Parts, "a part broken in the middle is not stored")

	part, err := m.AddPart(t.Context(), up.ID, body())
	require.NoError(t, err)
	m.Fail(apitest.OpComplete, apitest.After, apitest.Broken())
	_, err = m.Complete(t.Context(), up.ID, []string{part}, "")
	require.Error(t, err)
	require.Len(t, m.Files(), 1, "the answer was lost, not the File")
	require.Equal(t, []string{up.ID}, m.Uploads("completed"))
}

func TestHookSeesEveryStage(t *testing.T) {
	m := apitest.NewMemory()
	up, err := m.Create(t.Context(), spec)
	require.NoError(t, err)
	var stages []apitest.Call
	m.Hook(func(_ context.Context, c apitest.Call) error {
		stages = append(stages, c)
		return nil
	})
	_, err = m.AddPart(t.Context(), up.ID, body())
	require.NoError(t, err)
	require.Equal(t, []apitest.Call{
		{Op: apitest.OpPart, Stage: apitest.Before, UploadID: up.ID, N: 1},
		{Op: apitest.OpPart, Stage: apitest.MidBody, UploadID: up.ID, N: 1},
		{Op: apitest.OpPart, Stage: apitest.After, UploadID: up.ID, N: 1},
	}, stages)
}

func TestGate(t *testing.T) {
	m := apitest.NewMemory()
	gate := m.Hold(apitest.OpCreate, apitest.Before)
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() {
			if _, err := m.Create(t.Context(), spec); err != nil {
				t.Error(err)
			}
		})
	}
	gate.Await(t, 3)
	require.Equal(t, 3, m.Counts().InFlight[apitest.OpCreate])
	require.Zero(t, m.Counts().Created)
	gate.Pass()
	require.Eventually(t, func() bool { return m.Counts().Created == 1 }, 5*time.Minute, time.Millisecond)

	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	calls.Go(func() {
		if _, err := m.Create(ctx, spec); !errors.Is(err, reason) {
			t.Errorf("got %v", err)
		}
	})
	gate.Await(t, 3)
	cancel(reason)
	gate.Open()
	calls.Wait()
	require.Equal(t, 3, m.Counts().Created)
	require.Equal(t, 3, m.Counts().Peak[apitest.OpCreate])
	require.Zero(t, m.Counts().InFlight[apitest.OpCreate])
}

func TestUploadExpiresAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := apitest.NewMemory()
		up, err := m.Create(t.Context(), spec)
		require.NoError(t, err)
		require.Equal(t, time.Now().Add(time.Hour), up.ExpiresAt)
		time.Sleep(time.Hour - time.Nanosecond)
		_, err = m.AddPart(t.Context(), up.ID, body())
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = m.AddPart(t.Context(), up.ID, body())
		require.Equal(t, api.Gone, api.KindOf(err))
	})
}

func TestListLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := apitest.NewMemory()
		m.ListLag = 3 * time.Second
		up, err := m.Create(t.Context(), spec)
		require.NoError(t, err)
		part, err := m.AddPart(t.Context(), up.ID, body())
		require.NoError(t, err)
		file, err := m.Complete(t.Context(), up.ID, []string{part}, "")
		require.NoError(t, err)
		found, err := m.FindFiles(t.Context(), spec, file.CreatedAt)
		require.NoError(t, err)
		require.Empty(t, found)
		time.Sleep(m.ListLag)
		found, err = m.FindFiles(t.Context(), spec, file.CreatedAt)
		require.NoError(t, err)
		require.Equal(t, []api.File{file}, found)
	})
}
