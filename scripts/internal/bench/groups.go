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
	"strconv"
	"time"

	"uploadfs/uploader/api/plainsdk"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// copies compares cp of 1 GiB and its close with a native cp, with the SDK used
// plainly, and, where the MD5 is sent, with the larger of what bounds it.
func copies(checksum bool) func(b *bench, path string) error {
	return func(b *bench, path string) error {
		size := gib / b.scale
		src, err := b.file(size)
		if err != nil {
			return err
		}
		srv, err := b.server()
		if err != nil {
			return err
		}
		defer srv.stop()
		with := "--checksum=none"
		label := "cp 1 GiB + close, no checksum"
		native, plain := 3.0, 0.45
		if checksum {
			with, label, native, plain = "--checksum=md5", "cp 1 GiB + close, MD5", 0, 0
		} else if path == "writeback" {
			native, plain = 0, 0.9
		}
		m, err := b.mount(path, srv, with)
		if err != nil {
			return err
		}
		defer m.stop()
		ours := func() (time.Duration, error) { return m.copyIn(src, size) }
		if err := b.ratios(label+" / native cp", path, native, ours, func() (time.Duration, error) { return b.nativeCopy(src) }); err != nil {
			return err
		}
		if err := b.ratios(label+" / SDK, one part at a time", path, plain, ours, func() (time.Duration, error) { return b.sdk(srv, src, 1) }); err != nil {
			return err
		}
		if err := b.ratios(label+" / SDK, 8 at a time", path, 0, ours, func() (time.Duration, error) { return b.sdk(srv, src, 8) }); err != nil {
			return err
		}
		if !checksum {
			return nil
		}
		none, err := b.mount(path, srv, "--checksum=none")
		if err != nil {
			return err
		}
		defer none.stop()
		return b.ratios(label+" / the larger of MD5 alone and no checksum", path, 1.15, ours, func() (time.Duration, error) {
			sum, err := sumFile(src)
			if err != nil {
				return 0, err
			}
			bare, err := none.copyIn(src, size)
			return max(sum, bare), err
		})
	}
}

// writesAlone measures the writing without the sending: the server answers 503,
// and close does not wait.
func writesAlone(b *bench, path string) error {
	srv, err := b.server("-status", "503")
	if err != nil {
		return err
	}
	defer srv.stop()
	m, err := b.mount(path, srv, "--close=background", "--checksum=none", "--drain-timeout=0s")
	if err != nil {
		return err
	}
	defer m.stop()
	src, err := b.file(gib / b.scale)
	if err != nil {
		return err
	}
	goal, small := 1.2, 1.3
	if path == "writeback" {
		goal, small = 0, 2
	}
	err = b.ratios("cp 1 GiB, writes alone / native cp", path, goal,
		func() (time.Duration, error) { return m.timed("cp", src, m.fresh()) },
		func() (time.Duration, error) { return b.nativeCopy(src) })
	if err != nil {
		return err
	}
	count := fmt.Sprint("count=", 256*mib/4096/b.scale)
	dd := func(of string) (time.Duration, error) {
		return timed("dd", "if=/dev/zero", "of="+of, "bs=4k", count, "status=none")
	}
	return b.ratios("dd bs=4k 256 MiB, writes alone / native dd", path, small,
		func() (time.Duration, error) { return dd(m.fresh()) },
		func() (time.Duration, error) {
			of := filepath.Join(b.dir, "native")
			defer os.Remove(of)
			return dd(of)
		})
}

// readsBack reads a completed file of the mount against a native one; both are in
// the page cache.
func readsBack(b *bench, path string) error {
	srv, err := b.server()
	if err != nil {
		return err
	}
	defer srv.stop()
	m, err := b.mount(path, srv)
	if err != nil {
		return err
	}
	defer m.stop()
	src, err := b.file(gib / b.scale)
	if err != nil {
		return err
	}
	name := m.fresh()
	if _, err := timed("cp", src, name); err != nil {
		return err
	}
	return b.ratios("read 1 GiB back / native", path, 0,
		func() (time.Duration, error) { return timed("dd", "if="+name, "of=/dev/null", "bs=1M", "status=none") },
		func() (time.Duration, error) { return timed("dd", "if="+src, "of=/dev/null", "bs=1M", "status=none") })
}

// slowLine sends over 40 ms and 25 MB/s per connection, against what 8 of those
// could do at best.
func slowLine(b *bench, path string) error {
	const rate, slots = 25e6, 8
	srv, err := b.server("-latency", "40ms", "-rate", fmt.Sprint(int64(rate)))
	if err != nil {
		return err
	}
	defer srv.stop()
	for _, c := range []struct {
		size int64
		name string
		goal float64
	}{{256 * mib, "256 MiB", 1.25}, {gib, "1 GiB", 1.1}} {
		m, err := b.mount(path, srv, "--part-size=auto")
		if err != nil {
			return err
		}
		size := c.size / b.scale
		src, err := b.file(size)
		if err != nil {
			return err
		}
		ideal := time.Duration(float64(size) / (rate * slots) * float64(time.Second))
		err = b.ratios("slow line, "+c.name+" / ideal", path, c.goal,
			func() (time.Duration, error) { return m.copyIn(src, size) },
			func() (time.Duration, error) { return ideal, nil })
		m.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// smallFiles uploads 1,000 files of 4 KiB over a line of 40 ms, against what 8
// slots could do at best with three calls for each file.
func smallFiles(b *bench, path string) error {
	srv, err := b.server("-latency", "40ms")
	if err != nil {
		return err
	}
	defer srv.stop()
	n := 1000 / b.scale
	dir := filepath.Join(b.dir, "small")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		if err := writeRandom(filepath.Join(dir, fmt.Sprintf("f%04d.bin", i)), 4096); err != nil {
			return err
		}
	}
	m, err := b.mount(path, srv, "--close=background")
	if err != nil {
		return err
	}
	defer m.stop()
	ideal := time.Duration(n*3/8) * 40 * time.Millisecond
	return b.ratios("1,000 small files / ideal", path, 0,
		func() (time.Duration, error) {
			to := m.fresh()
			before, err := srv.stats()
			if err != nil {
				return 0, err
			}
			started := time.Now()
			if _, err := timed("cp", "-r", dir, to); err != nil {
				return 0, err
			}
			if err := m.idle(); err != nil {
				return 0, err
			}
			took := time.Since(started)
			after, err := srv.stats()
			if err == nil && after.Files-before.Files != n {
				err = fmt.Errorf("the server has %d Files more, and %d were written", after.Files-before.Files, n)
			}
			return took, err
		},
		func() (time.Duration, error) { return ideal, nil })
}

// costs measures the daemon's CPU time for each GiB and its peak memory.
func costs(b *bench, path string) error {
	srv, err := b.server()
	if err != nil {
		return err
	}
	defer srv.stop()
	size := 4 * gib / b.scale
	src, err := b.file(size)
	if err != nil {
		return err
	}
	goal := 0.0
	if path == "passthrough" {
		goal = 0.6
	}
	var cpu, peak []float64
	for range b.runs {
		m, err := b.mount(path, srv, "--checksum=none")
		if err != nil {
			return err
		}
		_, err = m.copyIn(src, size)
		if err == nil {
			var seconds, mem float64
			seconds, mem, err = m.usage()
			cpu, peak = append(cpu, seconds*gib/float64(size)), append(peak, mem/mib)
		}
		m.stop()
		if err != nil {
			return err
		}
	}
	b.add(row{Name: "daemon CPU per GiB, no checksum", Path: path, Unit: "s", Runs: cpu, Goal: goal})
	b.add(row{Name: "daemon peak memory, 4 GiB", Path: path, Unit: "MiB", Runs: peak, Goal: 80})
	return os.Remove(src)
}

// nativeCopy is what a copy costs without us.
func (b *bench) nativeCopy(src string) (time.Duration, error) {
	to := filepath.Join(b.dir, "native")
	defer os.Remove(to)
	return timed("cp", src, to)
}

// sdk times a program that uploads the file with the SDK, so many parts at a time:
// a process of its own, as cp is.
func (b *bench) sdk(srv *server, src string, parallel int) (time.Duration, error) {
	return timed("/proc/self/exe", "sdk", srv.url, src, strconv.Itoa(parallel))
}

// plain is that program.
func plain(url, src string, parallel int) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = plainsdk.Upload{
		Client: openai.NewClient(option.WithBaseURL(url), option.WithAPIKey(benchKey)),
		Params: openai.UploadNewParams{
			Bytes: info.Size(), Filename: "plain.bin", MimeType: "application/octet-stream", Purpose: openai.FilePurposeUserData,
		},
		PartSize: 64 * mib,
		Parallel: parallel,
	}.Send(context.Background(), f)
	return err
}

// sumFile is how long the MD5 of the file takes alone.
func sumFile(name string) (time.Duration, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	started := time.Now()
	_, err = io.CopyBuffer(struct{ io.Writer }{md5.New()}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	return time.Since(started), err
}

// timed runs a program to its end.
func timed(name string, args ...string) (time.Duration, error) {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	started := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", name, err, out.Bytes())
	}
	return time.Since(started), nil
}
