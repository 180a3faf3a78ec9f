//go:build linux

package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each file has its program run when its upload ends. The program gets the file's facts
// and no key, runs without a shell, and its failure is logged and counted.
func TestHooks(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	script := func(name, text string) {
		require.NoError(t, os.Chmod(b.write(name, "#!/bin/sh\n"+text), 0o755))
	}
	script("completed", `{ env | grep ^UPLOAD_ | sort; umask; pwd; env | grep -c -e OPENAI -e ^UPLOADFS_; } > `+b.dir+`/new; mv `+b.dir+`/new `+b.dir+`/facts`)
	script("failed", `echo "no mail today: $UPLOAD_ERROR"; exit 3`)
	old := b.mountArgs("--http", "127.0.0.1:0", "--on-complete", "./completed", "--on-failure", b.path("failed"))
	cmd := b.command("sh", append([]string{"-c", `umask 027; exec "$0" "$@"`, binary}, old...)...)
	r := b.do(cmd)
	require.Zero(t, r.code, r.stderr)
	b.cleanup()
	page := strings.TrimSpace(strings.TrimPrefix(r.stdout, "page: "))

	name := `a'; touch pwned; $(touch pwned).jsonl`
	require.NoError(t, os.WriteFile(filepath.Join(b.point, name), []byte("hello"), 0o644))
	var facts []byte
	b.await("the program has run", func() bool {
		var err error
		facts, err = os.ReadFile(b.path("facts"))
		return err == nil
	})
	st := b.info(name)
	require.Equal(t, strings.Join([]string{
		"UPLOAD_ERROR=", "UPLOAD_EVENT=complete", "UPLOAD_FILENAME=" + name, "UPLOAD_FILE_ID=" + st.FileID, "UPLOAD_ID=" + st.UploadID,
		"UPLOAD_MD5=" + st.MD5, "UPLOAD_MIME_TYPE=text/jsonl", "UPLOAD_MOUNT=" + b.point, "UPLOAD_PATH=" + filepath.Join(b.point, name),
		"UPLOAD_PURPOSE=user_data", "UPLOAD_SIZE=5", "UPLOAD_STATE=completed", "0027", "/", "0", "",
	}, "\n"), string(facts))

	server.refuse(http.StatusBadRequest, "Tired.")
	require.Error(t, os.WriteFile(filepath.Join(b.point, "b"), []byte("hello"), 0o644))
	b.await("its failure is counted", func() bool {
		_, text := get(t, page, "metrics")
		return strings.Contains(text, `uploadfs_hooks_total{event="failure",result="failure"} 1`) &&
			strings.Contains(text, `uploadfs_hooks_total{event="complete",result="success"} 1`)
	})
	log := b.shOK("cat state/uploadfs.log")
	require.Regexp(t, `msg="hook failed" event=failure path=b error="exit status 3" output="no mail today: .*Tired\."`, log)
	require.NoFileExists(t, "/pwned")

	// What ends while the mount ends has its program run before unmount returns.
	server.SetIntercept(nil)
	require.NoError(t, os.Remove(b.path("facts")))
	b.shOK(`rm "$M/b"; echo later > "$M/c.tmp"`) // is held until the end
	b.ok("unmount", b.point)
	facts, err := os.ReadFile(b.path("facts"))
	require.NoError(t, err)
	require.Contains(t, string(facts), "/c.tmp\n")
	b.refused(1, "name a program that can be run, without arguments", b.mountArgs("--on-complete", "./completed --verbose")...)
}
