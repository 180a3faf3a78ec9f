package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// logs is where each step's whole output stays, below the top of the source.
const logs = ".cache/test"

const (
	shownLines = 150 // of a failed step's output; the log has the rest
	shownSlow  = 10  // tests in the list of the slowest
)

// run is one call of this command.
type run struct {
	ctx      context.Context
	o        options
	out      io.Writer
	dir      string            // gone afterwards; any user may look in
	binaries string            // the test binaries
	programs string            // before the caller's PATH, if not empty
	binary   map[string]string // of each package

	mu        sync.Mutex // guards all below, and out
	test2json string
	begun     int
	ended     []ended
}

type ended struct {
	name string
	took time.Duration
	result
}

func newRun(ctx context.Context, o options, out io.Writer) (*run, error) {
	// Without a character that a state directory's name would escape.
	dir, err := os.MkdirTemp("", "uploadfs.test.")
	if err != nil {
		return nil, err
	}
	r := &run{ctx: ctx, o: o, out: out, dir: dir, binaries: filepath.Join(dir, "binaries"), binary: map[string]string{}}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := r.linkPython(); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(logs); err != nil {
		return nil, err
	}
	return r, os.MkdirAll(logs, 0o755)
}

// linkPython puts the interpreter before a script that stands for it, as version
// managers have them: such a script takes most of a second, and the tests start
// hundreds.
func (r *run) linkPython() error {
	path, err := exec.LookPath("python3")
	if err != nil {
		return nil // the tests that need it say so
	}
	text, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(text, []byte("#!")) {
		return err
	}
	interpreter, err := exec.Command(path, "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r.programs = filepath.Join(r.dir, "programs")
	if err := os.Mkdir(r.programs, 0o755); err != nil {
		return err
	}
	return os.Symlink(strings.TrimSpace(string(interpreter)), filepath.Join(r.programs, "python3"))
}

func (r *run) close() { exec.Command("rm", "-rf", "--one-file-system", r.dir).Run() }

// work is what a step has to work with. What is written to it goes to the log.
type work struct {
	r        *run
	dir, tmp string
	log      *os.File
	left     []string // what has been found to be left behind
	cpu      time.Duration
}

func (w *work) Write(b []byte) (int, error) { return w.log.Write(b) }

// output is all that was written.
func (w *work) output() string {
	text, err := os.ReadFile(w.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// environ is that of this step's processes.
func (w *work) environ(more ...string) []string {
	env := append(os.Environ(), "TMPDIR="+w.tmp, stepEnv+"="+w.dir)
	if w.r.programs != "" {
		env = append(env, "PATH="+w.r.programs+":"+os.Getenv("PATH"))
	}
	return append(env, more...)
}

// command runs a program at the top of the source; its output goes to the log.
func (w *work) command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = w.environ(env...)
	cmd.Stdout, cmd.Stderr = w.log, w.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	w.spent(cmd)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return nil
}

// spent counts the processor time of a program that has ended, and of the processes
// that it has waited for.
func (w *work) spent(cmd *exec.Cmd) {
	if p := cmd.ProcessState; p != nil {
		w.cpu += p.UserTime() + p.SystemTime()
	}
}

// steps runs them in their order. Those that may run beside each other do so, one more
// at a time than there are processors, since they often wait.
func (r *run) steps(steps []*step) {
	total := len(steps)
	for len(steps) > 0 && r.ctx.Err() == nil {
		n := 1
		for steps[0].beside && n < len(steps) && steps[n].beside {
			n++
		}
		slots := make(chan struct{}, runtime.NumCPU()+1)
		var all sync.WaitGroup
		for _, s := range steps[:n] {
			slots <- struct{}{}
			if r.ctx.Err() != nil {
				break
			}
			number := r.begins(s, total)
			all.Go(func() {
				defer func() { <-slots }()
				r.step(s, number)
			})
		}
		all.Wait()
		steps = steps[n:]
	}
}

// begins says which step of how many this one is.
func (r *run) begins(s *step, total int) (number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun++
	fmt.Fprintf(r.out, "[%2d/%d] %-24s %s\n", r.begun, total, s.name, logName(s.name))
	return r.begun
}

// step runs one step, and prints how it ended.
func (r *run) step(s *step, number int) {
	w, err := r.newWork(s, number)
	var res result
	began := time.Now()
	if err == nil {
		res = s.run(r.ctx, w)
		if left := w.sweep(); len(left) > 0 {
			res.failed++
			res.text = "left behind, and removed now:\n  " + strings.Join(left, "\n  ") + "\n" + res.text
			fmt.Fprintf(w, "left behind:\n%s\n", strings.Join(left, "\n"))
		}
		w.log.Close()
		res.cpu = w.cpu
	} else {
		res = result{failed: 1, text: err.Error() + "\n"}
	}
	e := ended{s.name, time.Since(began), res}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, e)
	word := "ok  "
	if res.failed > 0 {
		word = "FAIL"
		fmt.Fprintf(r.out, "%s", shorten(res.text))
	}
	fmt.Fprintf(r.out, "%s    %-24s %s  %.1f s\n", word, s.name, res.counts(), e.took.Seconds())
}

func (r *run) newWork(s *step, number int) (*work, error) {
	w := &work{r: r, dir: filepath.Join(r.dir, fmt.Sprint(number))}
	w.tmp = filepath.Join(w.dir, "tmp")
	err := os.MkdirAll(w.tmp, 0o755)
	if err == nil {
		err = os.Chmod(w.tmp, 0o777|os.ModeSticky)
	}
	if err == nil {
		w.log, err = os.Create(logName(s.name))
	}
	return w, err
}

func logName(step string) string {
	return filepath.Join(logs, strings.NewReplacer("/", "_", ":", ".").Replace(step)+".log")
}

// shorten keeps the first lines of a text, indented.
func shorten(text string) string {
	var b strings.Builder
	shown := 0
	for line := range strings.Lines(text) {
		if shown++; shown > shownLines {
			b.WriteString("      … the log has the rest\n")
			break
		}
		b.WriteString("      " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// summary prints what all steps came to, and reports whether one failed. The
// last line is for programs as well.
func (r *run) summary() (failed bool) {
	var sum result
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n%-40s %7s %7s %7s %7s %8s %8s\n", "", "passed", "failed", "skipped", "not run", "seconds", "CPU s")
	for _, e := range r.ended {
		fmt.Fprintf(&b, "%-40s %7d %7d %7d %7d %8.1f %8.1f\n", e.name, e.passed, e.failed, e.skipped, e.notRun, e.took.Seconds(), e.cpu.Seconds())
		sum.passed += e.passed
		sum.failed += e.failed
		sum.skipped += e.skipped
		sum.slow = append(sum.slow, e.slow...)
	}
	slices.SortFunc(sum.slow, func(a, b slowTest) int { return cmp.Compare(b.took, a.took) })
	if len(sum.slow) > 0 {
		fmt.Fprintf(&b, "\nthe slowest tests:\n")
	}
	for _, t := range sum.slow[:min(len(sum.slow), shownSlow)] {
		fmt.Fprintf(&b, "  %6.1f s  %s\n", t.took.Seconds(), t.name)
	}
	fmt.Fprintf(&b, "\n%s\n", sum.counts())
	r.out.Write(b.Bytes())
	return sum.failed > 0
}
