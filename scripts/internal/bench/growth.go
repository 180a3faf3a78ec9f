package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"uploadfs/uploader/oldmount"
	"uploadfs/uploader/state"
)

// growthStates are what the files of a grown tree are; "" are files without a record.
var growthStates = []state.State{state.Completed, state.Interrupted, ""}

// growth mounts trees of as many files as sizes lists, which an earlier mount has left,
// and measures what each costs.
func growth(b *bench, path, sizes string) error {
	srv, err := b.server()
	if err != nil {
		return err
	}
	defer srv.stop()
	for _, size := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 {
			return fmt.Errorf("-growth: %q is no number of files", size)
		}
		for _, s := range growthStates {
			if err := b.grown(srv, path, n, s); err != nil {
				return fmt.Errorf("%d files: %w", n, err)
			}
		}
	}
	return nil
}

// grown measures one tree of n files in the state s.
func (b *bench) grown(srv *server, path string, n int, s state.State) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	m, err := b.mount(path, srv) // makes the state directory
	if err != nil {
		return err
	}
	defer m.stop()
	if out, err := exec.Command(b.bin, "unmount", m.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount: %w: %s", err, out)
	}
	if err := oldmount.Make(m.state, n, s, strings.TrimSpace(string(boot))); err != nil {
		return err
	}
	// What made the files is not to be measured with the mount.
	if out, err := exec.Command("sync", "-f", m.state).CombinedOutput(); err != nil {
		return fmt.Errorf("sync: %w: %s", err, out)
	}
	name := string(s)
	if s == "" {
		name = "unknown"
	}
	add := func(what, unit string, value, goal float64) {
		b.add(row{Name: fmt.Sprintf("%d %s files: %s", n, name, what), Path: path, Unit: unit, Runs: []float64{value}, Goal: goal})
	}
	started := time.Now()
	if err := m.begin(path); err != nil {
		return err
	}
	add("ready", "s", time.Since(started).Seconds(), 2)
	asked := time.Now()
	if _, err := m.comparing(); err != nil {
		return err
	}
	add("status at once", "s", time.Since(asked).Seconds(), 0.5)
	for {
		going, err := m.comparing()
		if err != nil {
			return err
		}
		if !going {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	add("compared behind", "s", time.Since(started).Seconds(), 0)
	_, peak, err := m.usage()
	if err != nil {
		return err
	}
	add("peak memory", "MiB", peak/mib, 100)
	asked = time.Now()
	if _, err := m.comparing(); err != nil {
		return err
	}
	add("status", "s", time.Since(asked).Seconds(), 0.5)
	from, to := filepath.Join(m.dir, "d0000"), filepath.Join(m.dir, "moved")
	asked = time.Now()
	if err := os.Rename(from, to); err != nil {
		return err
	}
	add("mv of a directory of 1,000", "s", time.Since(asked).Seconds(), 0)
	return nil
}

// comparing reports whether the mount is still being compared with its journal.
func (m *mounted) comparing() (bool, error) {
	out, err := exec.Command(m.b.bin, "status", "--json", m.dir).Output()
	if err != nil {
		return false, fmt.Errorf("status: %w", err)
	}
	var st struct {
		Comparing *struct {
			Error string `json:"error"`
		} `json:"comparing"`
	}
	if err := json.Unmarshal(out, &st); err != nil {
		return false, err
	}
	if st.Comparing != nil && st.Comparing.Error != "" {
		return false, errors.New(st.Comparing.Error)
	}
	return st.Comparing != nil, nil
}
