package openai_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
)

func TestCheckKey(t *testing.T) {
	l := serve(t, false)
	before := time.Now().Truncate(time.Second)
	now, err := newBackend(t, l.url, openai.Config{}).CheckKey(t.Context())
	require.NoError(t, err)
	require.WithinRange(t, now, before, time.Now())

	now, err = newBackend(t, l.url, openai.Config{Key: openai.StaticKey("sk-of-another-server")}).CheckKey(t.Context())
	var refused *api.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, api.Denied, refused.Kind)
	require.Equal(t, http.StatusUnauthorized, refused.Status)
	require.WithinRange(t, now, before, time.Now())

	now, err = newBackend(t, "http://127.0.0.1:1", openai.Config{}).CheckKey(t.Context())
	require.ErrorIs(t, err, api.ErrNotSent)
	require.Zero(t, now)
}
