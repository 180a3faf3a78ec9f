//go:build linux

package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// makeInputs makes the files that the cases find in $IN. They are the same at each run.
func makeInputs(dir string) error {
	var lines, other bytes.Buffer
	for i := range 3000 {
		fmt.Fprintf(&lines, "{\"line\": %d, \"text\": \"the quick brown fox\"}\n", i)
		fmt.Fprintf(&other, "{\"line\": %d, \"text\": \"the lazy dog %d\"}\n", i, i*i)
	}
	random := rand.NewChaCha8([32]byte{1})
	big := make([]byte, 9<<20+123) // two parts
	random.Read(big)
	picture := image.NewGray(image.Rect(0, 0, 64, 64))
	for i := range picture.Pix {
		picture.SetGray(i%64, i/64, color.Gray{Y: uint8(i)})
	}
	var photo bytes.Buffer
	if err := jpeg.Encode(&photo, picture, nil); err != nil {
		return err
	}
	old := time.Unix(1_700_000_000, 0)
	for name, content := range map[string][]byte{
		"a.jsonl": lines.Bytes(), "small/a.jsonl": lines.Bytes(), "small/sub/b.jsonl": other.Bytes(), "small/empty": nil,
		"b.jsonl": other.Bytes(), "big.bin": big, "medium.bin": big[:1<<20], "photo.jpg": photo.Bytes(),
		"table.csv": []byte("name,size\nfox,3\ndog,5\n"),
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(name, old, old); err != nil {
			return err
		}
	}
	return nil
}

// serve offers a directory for download, by ranges too.
func serve(dir string) (url string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go http.Serve(listener, http.FileServer(http.Dir(dir)))
	return "http://" + listener.Addr().String(), nil
}
