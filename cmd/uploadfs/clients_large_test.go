//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"uploadfs/uploader/api/plainsdk"

	"github.com/stretchr/testify/require"
)

// The size of the round trip, bytes, and that of its parts. The full matrix has 200 MiB.
var largeFile, largePart = largeSizes()

func largeSizes() (file, part int64) {
	if fullMatrix() {
		return 200 << 20, 50 << 20
	}
	return 16 << 20, 8 << 20
}

// TestLargeRoundTrip sends a file through `uploadfs serve` by each real client there
// is on this machine: in parts, completed, read back, compared.
func TestLargeRoundTrip(t *testing.T) {
	clients := map[string]func(b *box, s *served, path string) (fileID string){
		"official Go SDK": sdkRoundTrip,
		"put":             putRoundTrip,
	}
	if _, err := exec.LookPath("curl"); err == nil {
		clients["curl"] = curlRoundTrip
	}
	if dir, err := nodePackage(); err == nil {
		clients["official Node SDK"] = func(b *box, s *served, path string) string { return nodeRoundTrip(b, path, dir) }
	} else {
		t.Logf("without the Node SDK: %v", err)
	}
	b := self(t)
	path := b.path("large")
	f, err := os.Create(path)
	require.NoError(t, err)
	block := b.big("block", 1<<20)
	sum := md5.New()
	for i := range largeFile >> 20 {
		copy(block[512:], fmt.Sprint(i))
		_, err := io.MultiWriter(f, sum).Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	for name, roundTrip := range clients {
		t.Run(name, func(t *testing.T) {
			b := self(t)
			s := b.serveKeyed()
			s.use(b)
			// Each client has compared what it could; this is what is there.
			client := sdk(s, 0)
			res, err := client.Files.Content(context.Background(), roundTrip(b, s, path))
			require.NoError(t, err)
			defer res.Body.Close()
			got := md5.New()
			n, err := io.Copy(got, res.Body)
			require.NoError(t, err)
			require.EqualValues(t, largeFile, n)
			require.Equal(t, sum.Sum(nil), got.Sum(nil))
		})
	}
}

func putRoundTrip(b *box, _ *served, path string) string {
	return strings.TrimSpace(b.ok(b.put("--quiet", "--purpose", "evals", path)...))
}

func sdkRoundTrip(b *box, s *served, path string) string {
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	id, err := plainsdk.Upload{Client: sdk(s, 0), Params: newUpload(largeFile), PartSize: largePart, Parallel: 2, MD5: true}.Send(context.Background(), f)
	require.NoError(b, err)
	return id
}

// curlRoundTrip does as the published examples do, one part after the other.
func curlRoundTrip(b *box, _ *served, path string) string {
	// Without pipefail: head ends tail before its time.
	const script = `set -eu
post() { local path=$1; shift; curl -sS --fail-with-body -H "Authorization: Bearer $OPENAI_API_KEY" "$OPENAI_BASE_URL$path" "$@"; }
id() { python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'; }
size=$(stat -c %s "$1")
upload=$(post /uploads -H 'Content-Type: application/json' \
	-d "{\"filename\": \"curl.jsonl\", \"purpose\": \"batch\", \"mime_type\": \"text/jsonl\", \"bytes\": $size}" | id)
parts=
for ((off = 0; off < size; off += $2)); do
	part=$(tail -c +$((off + 1)) "$1" | head -c "$2" | post "/uploads/$upload/parts" -F data=@- | id)
	parts+="${parts:+, }\"$part\""
done
file=$(post "/uploads/$upload/complete" -H 'Content-Type: application/json' \
	-d "{\"part_ids\": [$parts], \"md5\": \"$(md5sum <"$1" | cut -d ' ' -f 1)\"}" |
	python3 -c 'import json, sys; print(json.load(sys.stdin)["file"]["id"])')
post "/files/$file/content" | cmp - "$1"
echo "$file"`
	r := b.do(b.command("bash", "-c", script, "curl", path, fmt.Sprint(largePart)))
	require.Zero(b, r.code, r.stderr)
	return strings.TrimSpace(r.stdout)
}

// nodePackage is a directory in which the official Node package can be imported:
// $UPLOADFS_TEST_NODE_DIR, or one that npm installs it into.
func nodePackage() (string, error) {
	if dir := os.Getenv("UPLOADFS_TEST_NODE_DIR"); dir != "" {
		return dir, nil
	}
	if _, err := exec.LookPath("node"); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(base, "node-")
	if err != nil {
		return "", err
	}
	npm := exec.Command("npm", "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--cache", filepath.Join(dir, "cache"), "openai@6")
	npm.Dir = dir
	var out bytes.Buffer
	npm.Stdout, npm.Stderr = &out, &out
	if err := npm.Run(); err != nil {
		return "", fmt.Errorf("npm: %w: %s", err, out.String())
	}
	return dir, nil
}

func nodeRoundTrip(b *box, path, dir string) string {
	// Packages are found from where the script lies.
	script, err := os.ReadFile("testdata/client.mjs")
	require.NoError(b, err)
	run := filepath.Join(dir, "client.mjs")
	require.NoError(b, os.WriteFile(run, script, 0o600))
	r := b.do(b.command("node", run, path, fmt.Sprint(largePart)))
	require.Zero(b, r.code, r.stderr)
	return strings.TrimSpace(r.stdout)
}
