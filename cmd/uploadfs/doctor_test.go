//go:build linux

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/mount"
	"uploadfs/uploader/api/local"
)

// doctor returns what was found, by check, and the exit status.
func (b *box) doctor(args ...string) (map[string]mount.Finding, int) {
	b.Helper()
	r := b.uploadfs(append([]string{"doctor", "--json"}, args...)...)
	found := map[string]mount.Finding{}
	for line := range strings.Lines(r.stdout) {
		var f mount.Finding
		require.NoError(b, json.Unmarshal([]byte(line), &f), line)
		found[f.Check] = f
	}
	require.NotContains(b, r.stdout+r.stderr, testKey)
	return found, r.code
}

func TestDoctor(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(t)
		server.use(b)
		var creates atomic.Int64
		server.SetIntercept(func(p local.Point) *local.Fault {
			if p.Op == local.OpCreate && p.Stage == local.StageHead {
				creates.Add(1)
			}
			return nil
		})
		found, code := b.doctor(b.point)
		require.Zero(b, code, found)
		for check, verdict := range map[string]mount.Verdict{
			"kernel": "", "passthrough": "", "/dev/fuse": mount.Fine, "fusermount3": mount.Fine, "privileges": "", "processes": "",
			"state directory": mount.Fine, "endpoint": mount.Fine, "TLS": mount.Note, "clock": mount.Fine, "key": mount.Fine,
		} {
			require.Contains(b, found, check)
			require.NotEmpty(b, found[check].Message)
			if verdict != "" {
				require.Equal(b, verdict, found[check].Verdict, found[check].Message)
			}
		}
		require.NotContains(b, found, "upload")
		require.Zero(b, creates.Load())
		want := mount.Fine
		if b.user.uid != 0 {
			want = mount.Note
			require.Contains(b, found["passthrough"].Message, "needs root")
		}
		require.Equal(b, want, found["privileges"].Verdict)
		require.Contains(b, found["state directory"].Message, mount.Escape(b.point))
		require.NoFileExists(b, filepath.Join(b.dir, ".local"), "it changes nothing")

		found, code = b.doctor("--deep", "--purpose", "batch")
		require.Zero(b, code)
		require.Equal(b, mount.Finding{Check: "upload", Verdict: mount.Fine, Message: "the API takes Uploads with purpose batch"}, found["upload"])
		require.EqualValues(b, 1, creates.Load())
	})
}

func TestDoctorSaysWhatToDo(t *testing.T) {
	b := self(t)
	without, code := b.doctor()
	require.Equal(t, 1, code)
	require.Contains(t, without["key"].Message, "no API key")
	early := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-2*time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusForbidden)
		w.Write([]byte(`{"error":{"message":"Not yours."}}`))
	}))
	defer early.Close()
	b.env = append(b.env, "OPENAI_API_KEY="+testKey, "OPENAI_BASE_URL="+early.URL+"/v1")
	found, code := b.doctor("--state-dir", filepath.Join(b.write("file", ""), "state"))
	require.Equal(t, 1, code)
	require.Equal(t, mount.Broken, found["state directory"].Verdict)
	require.Regexp(t, `does not answer \(.*x509|does not answer \(.*certificate`, found["endpoint"].Message)
	require.Contains(t, found["key"].Message, "the endpoint does not answer")

	plain := httptest.NewServer(early.Config.Handler)
	defer plain.Close()
	b.env = append(b.env, "OPENAI_BASE_URL="+plain.URL+"/v1")
	found, code = b.doctor("--deep")
	require.Equal(t, 1, code, "no Upload can be made")
	require.Contains(t, found["clock"].Message, "2h0m")
	require.Equal(t, mount.Note, found["key"].Verdict)
	require.Equal(t, "the API refuses an Upload with purpose user_data: Not yours", found["upload"].Message)
	found, code = b.doctor("--embedded")
	require.Equal(t, mount.Fine, found["endpoint"].Verdict)
	require.NotContains(t, found, "key")
	require.Zero(t, code, found)

	r := b.uploadfs("doctor", "--embedded")
	require.Regexp(t, `(?m)^ok +state directory +/`, r.stdout)
}
