// Command bench measures uploadfs against what there is without it: a native cp,
// and the official SDK used plainly. Everything is compared within one run, pair
// by pair, because a machine's speed drifts; the ratios are what to quote.
//
// The API server and the daemon are processes of their own, so that the daemon's
// CPU time and memory are its own. A run in which the server received fewer bytes
// than were written is thrown out.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// row is one line of the table.
type row struct {
	Name  string    `json:"name"`
	Path  string    `json:"write_path,omitempty"`
	Value float64   `json:"median"`
	Unit  string    `json:"unit"`
	Runs  []float64 `json:"runs"`
	Goal  float64   `json:"goal,omitempty"` // the median should be at most this
}

// bench is one run of everything.
type bench struct {
	dir   string // scratch, on the disk to be measured
	bin   string // the uploadfs binary
	runs  int
	scale int64 // sizes are divided by it
	rows  []row
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		fail(serve(os.Args[2:]))
		return
	}
	if len(os.Args) == 5 && os.Args[1] == "sdk" {
		parallel, err := strconv.Atoi(os.Args[4])
		fail(err)
		fail(plain(os.Args[2], os.Args[3], parallel))
		return
	}
	bin := flag.String("bin", "", "the uploadfs `BINARY` to measure")
	out := flag.String("json", "", "write the figures to this `FILE` too")
	runs := flag.Int("runs", 5, "counted runs of each, after one warm-up")
	scale := flag.Int64("scale", 1, "divide all sizes by `N`, to try the program out")
	only := flag.String("only", "", "measure only the groups named, e.g. a,c")
	paths := flag.String("paths", "", "write paths, e.g. passthrough,writeback; default: all that this user can have")
	grow := flag.String("growth", "", "measure instead what mounts cost that have `N,N,…` old files, e.g. 1000,10000,100000,1000000")
	flag.Parse()
	b := &bench{bin: *bin, runs: *runs, scale: *scale}
	fail(b.run(*only, *paths, *grow))
	b.print(os.Stdout)
	if *out != "" {
		data, err := json.MarshalIndent(map[string]any{
			"cpus": runtime.NumCPU(), "runs": b.runs, "scale": b.scale, "time": time.Now().UTC().Format(time.RFC3339), "rows": b.rows,
		}, "", "  ")
		fail(err)
		fail(os.WriteFile(*out, append(data, '\n'), 0o644))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures the groups that only names ("" for all) in each write path, or where it
// is given, the growth.
func (b *bench) run(only, paths, sizes string) (err error) {
	if b.bin == "" {
		return errors.New("name the binary to measure with -bin")
	}
	if b.dir, err = os.MkdirTemp("", "uploadfs-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if paths == "" {
		if paths = "writeback"; os.Geteuid() == 0 {
			paths = "passthrough,writeback"
		}
	}
	groups := []struct {
		name string
		f    func(b *bench, path string) error
	}{{"a", copies(true)}, {"b", copies(false)}, {"c", writesAlone}, {"d", readsBack}, {"e", slowLine}, {"f", smallFiles}, {"g", costs}, {"h", manyDescriptors}}
	if sizes != "" {
		path, _, _ := strings.Cut(paths, ",")
		return growth(b, path, sizes)
	}
	for _, path := range strings.Split(paths, ",") {
		for _, g := range groups {
			if only != "" && !slices.Contains(strings.Split(only, ","), g.name) {
				continue
			}
			if err := g.f(b, path); err != nil {
				return fmt.Errorf("%s in %s: %w", g.name, path, err)
			}
		}
	}
	return nil
}

// add puts a figure into the table.
func (b *bench) add(r row) {
	r.Value = median(r.Runs)
	b.rows = append(b.rows, r)
	fmt.Fprintf(os.Stderr, "%s, %s: %.3g %s\n", r.Path, r.Name, r.Value, r.Unit)
}

// ratios times a against b in turn, after a warm-up of each, and adds the ratio.
func (b *bench) ratios(name, path string, goal float64, run, against func() (time.Duration, error)) error {
	var ratios, seconds []float64
	for i := -1; i < b.runs; i++ {
		t, err := run()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		u, err := against()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i >= 0 {
			ratios = append(ratios, t.Seconds()/u.Seconds())
			seconds = append(seconds, t.Seconds())
		}
	}
	b.add(row{Name: name, Path: path, Unit: "×", Runs: ratios, Goal: goal})
	b.add(row{Name: name + ", ours", Path: path, Unit: "s", Runs: seconds})
	return nil
}

func median(v []float64) float64 {
	s := slices.Clone(v)
	slices.Sort(s)
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func (b *bench) print(w *os.File) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tmedian\tmin\tmax\tgoal\twrite path")
	for _, r := range b.rows {
		goal := ""
		if r.Goal > 0 {
			if goal = fmt.Sprintf("≤ %.3g", r.Goal); r.Value > r.Goal {
				goal += " missed"
			}
		}
		fmt.Fprintf(t, "%s\t%.3g %s\t%.3g\t%.3g\t%s\t%s\n", r.Name, r.Value, r.Unit, slices.Min(r.Runs), slices.Max(r.Runs), goal, r.Path)
	}
	t.Flush()
}

// file makes a file of n pseudo-random bytes in the scratch directory, once.
func (b *bench) file(n int64) (string, error) {
	name := filepath.Join(b.dir, fmt.Sprint("source.", n))
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	return name, writeRandom(name, n)
}
