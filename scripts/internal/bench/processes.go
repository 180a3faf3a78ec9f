package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"uploadfs/uploader/api/local"
)

const benchKey = "bench"

// counts is what the server has seen.
type counts struct {
	PartBytes int64 `json:"part_bytes"`
	Files     int64 `json:"files"`
}

// serve is the server's process: the API over a directory, on a line as slow as
// asked for, and at /bench what it has received.
func serve(args []string) error {
	set := flag.NewFlagSet("serve", flag.ExitOnError)
	dir := set.String("dir", "", "")
	latency := set.Duration("latency", 0, "")
	rate := set.Int64("rate", 0, "")
	status := set.Int("status", 0, "")
	if err := set.Parse(args); err != nil {
		return err
	}
	api, err := local.Open(local.Options{Dir: *dir, Key: benchKey, TrustMD5: true,
		Faults: local.Faults{Latency: *latency, RatePerConnection: *rate}})
	if err != nil {
		return err
	}
	if *status != 0 {
		api.SetIntercept(func(p local.Point) *local.Fault {
			if p.Stage != local.StageHead {
				return nil
			}
			return &local.Fault{Status: *status, Message: "not now"}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	side, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(side, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete { // the bytes of earlier runs are in the way of later ones
			for _, f := range api.Files() {
				req, _ := http.NewRequest(http.MethodDelete, "http://"+l.Addr().String()+"/v1/files/"+f.ID, nil)
				req.Header.Set("Authorization", "Bearer "+benchKey)
				if resp, err := http.DefaultClient.Do(req); err == nil {
					resp.Body.Close()
				}
			}
		}
		s := api.Stats()
		json.NewEncoder(w).Encode(counts{s.PartBytes, s.FilesCreated})
	}))
	fmt.Println(l.Addr(), side.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends with the parent
		api.Close()
	}()
	return api.Serve(l)
}

// server is the server's process, seen from here.
type server struct {
	url, side string
	cmd       *exec.Cmd
	in        io.Closer
	dir       string
}

func (b *bench) server(args ...string) (*server, error) {
	dir, err := os.MkdirTemp(b.dir, "api-")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"serve", "-dir", dir}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	at := strings.Fields(line)
	return &server{url: "http://" + at[0] + "/v1", side: "http://" + at[1] + "/bench", cmd: cmd, in: in, dir: dir}, nil
}

func (s *server) stop() {
	s.in.Close()
	s.cmd.Wait()
	os.RemoveAll(s.dir)
}

func (s *server) stats() (counts, error) { return s.ask(http.MethodGet) }

func (s *server) ask(method string) (c counts, err error) {
	req, err := http.NewRequest(method, s.side, nil)
	if err != nil {
		return c, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	return c, json.NewDecoder(resp.Body).Decode(&c)
}

// mounted is a daemon and its mount.
type mounted struct {
	b     *bench
	srv   *server
	dir   string
	state string
	n     int
	last  string
}

func (b *bench) mount(path string, srv *server, args ...string) (*mounted, error) {
	top, err := os.MkdirTemp(b.dir, "mount-")
	if err != nil {
		return nil, err
	}
	m := &mounted{b: b, srv: srv, dir: filepath.Join(top, "mnt"), state: filepath.Join(top, "state")}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return nil, err
	}
	return m, m.begin(path, args...)
}

// begin mounts. It returns when the mount is ready.
func (m *mounted) begin(path string, args ...string) error {
	cmd := exec.Command(m.b.bin, append(append([]string{"mount", "--state-dir", m.state, "--write-path", path}, args...), m.dir)...)
	cmd.Env = append(os.Environ(), "OPENAI_API_KEY="+benchKey, "OPENAI_BASE_URL="+m.srv.url)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	return nil
}

// stop unmounts. Work that is left is expected where the server refuses it.
func (m *mounted) stop() {
	exec.Command(m.b.bin, "unmount", m.dir).Run()
	os.RemoveAll(filepath.Dir(m.dir))
}

// fresh removes the file of the run before and names the one of the next.
func (m *mounted) fresh() string {
	if m.last != "" {
		os.RemoveAll(m.last)
		m.srv.ask(http.MethodDelete)
	}
	m.n++
	m.last = filepath.Join(m.dir, fmt.Sprint("f", m.n, ".bin"))
	return m.last
}

func (m *mounted) timed(name string, args ...string) (time.Duration, error) {
	return timed(name, args...)
}

// copyIn copies src in and waits for its close. The server must have got all of it.
func (m *mounted) copyIn(src string, size int64) (time.Duration, error) {
	to := m.fresh()
	before, err := m.srv.stats()
	if err != nil {
		return 0, err
	}
	took, err := timed("cp", src, to)
	if err != nil {
		return 0, err
	}
	after, err := m.srv.stats()
	if err == nil && (after.PartBytes-before.PartBytes < size || after.Files == before.Files) {
		err = fmt.Errorf("invalid run: %d bytes were written, the server received %d", size, after.PartBytes-before.PartBytes)
	}
	return took, err
}

// idle waits until nothing of the mount is on its way.
func (m *mounted) idle() error {
	for {
		out, err := exec.Command(m.b.bin, "status", "--json", m.dir).Output()
		if err != nil {
			return err
		}
		var st struct {
			Counts map[string]int `json:"counts"`
		}
		if err := json.Unmarshal(out, &st); err != nil {
			return err
		}
		if st.Counts["failed"] > 0 {
			return errors.New("files failed")
		}
		if st.Counts["uploading"]+st.Counts["retrying"]+st.Counts["writing"] == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// usage is the daemon's CPU time in seconds and its peak memory in bytes.
func (m *mounted) usage() (cpu, peak float64, err error) {
	lock, err := os.ReadFile(filepath.Join(m.state, "lock"))
	if err != nil {
		return 0, 0, err
	}
	pid := strings.FieldsFunc(string(lock), func(r rune) bool { return r < '0' || r > '9' })
	if len(pid) == 0 {
		return 0, 0, errors.New("the lock names no process")
	}
	stat, err := os.ReadFile("/proc/" + pid[0] + "/stat")
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, field := range f[11:13] { // utime and stime, in ticks of 10 ms
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, 0, err
		}
		cpu += ticks / 100
	}
	status, err := os.ReadFile("/proc/" + pid[0] + "/status")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return cpu, kib * 1024, err
		}
	}
	return 0, 0, errors.New("no peak memory")
}

// writeRandom writes n bytes that no line or disk can make smaller.
func writeRandom(name string, n int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(len(name))})
	if _, err := io.CopyN(f, r, n); err != nil {
		return err
	}
	return f.Close()
}
