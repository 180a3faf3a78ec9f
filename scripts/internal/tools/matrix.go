//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"uploadfs/uploader/api/local"
)

// matrix is one run of all cases.
type matrix struct {
	o      options
	out    io.Writer
	shop   *workshop
	self   string // this program, where every user can run it
	native map[*toolCase]map[string]*result

	passed, failed, skipped int
}

// result is what a case has left, and how its parts have ended.
type result struct {
	status  [3]string // of before, do, check
	tree    []entry
	printed string
}

func runMatrix(ctx context.Context, o options, sections []*section, out io.Writer) (failed bool, err error) {
	unix.Umask(0o022)
	dir, err := os.MkdirTemp("", "uploadfs-tools.")
	if err != nil {
		return false, err
	}
	defer func() { exec.Command("rm", "-rf", "--one-file-system", dir).Run() }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return false, err
	}
	installed, err := filepath.Abs(o.root)
	if err != nil {
		return false, err
	}
	m := &matrix{o: o, out: out, native: map[*toolCase]map[string]*result{}}
	m.shop = &workshop{programs: &programs{installed: installed, dir: filepath.Join(dir, "root")}}
	if err := m.shop.programs.bootstrap(ctx, os.Stdout); err != nil {
		return false, fmt.Errorf("a root for the tools: %w", err)
	}
	if err := m.furnish(filepath.Join(dir, "matrix")); err != nil {
		return false, err
	}
	defer m.leave()
	if o.install {
		m.shop.programs.install(ctx, packagesOf(sections), os.Stdout)
	}
	for i, name := range o.modes {
		for _, mode := range allModes {
			if mode.name == name {
				if err := m.runMode(ctx, mode, o.modes[:i], sections); err != nil {
					return true, err
				}
			}
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", m.passed, m.failed, m.skipped)
	return m.failed > 0 || m.passed == 0, nil
}

// furnish makes /matrix, and what the cases find in it.
func (m *matrix) furnish(work string) error {
	for _, dir := range []string{"in", "out", "native"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return err
		}
	}
	for _, user := range []string{"root", "nobody"} {
		if err := makeFor(user, filepath.Join(work, "cache", user)); err != nil {
			return err
		}
	}
	if err := makeInputs(filepath.Join(work, "in")); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for from, to := range map[string]*string{self: &m.self, m.o.binary: &m.o.binary} {
		target := filepath.Join(work, filepath.Base(from))
		if out, err := exec.Command("cp", "-L", from, target).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		*to = target
	}
	if m.shop.url, err = serve(filepath.Join(work, "in")); err != nil {
		return err
	}
	m.shop.base = filepath.Join(m.shop.programs.dir, "matrix")
	m.self = strings.Replace(m.self, work, m.shop.base, 1)
	m.o.binary = strings.Replace(m.o.binary, work, m.shop.base, 1)
	return m.shop.programs.enter(work)
}

// leave takes the root away, so that what is below can be removed.
func (m *matrix) leave() { unix.Unmount(m.shop.programs.dir, unix.MNT_DETACH) }

// runMode runs all cases in one mount. The first mount that a case can be run in is also
// the one whose API refuses it.
func (m *matrix) runMode(ctx context.Context, mode mode, earlier []string, sections []*section) error {
	mount, err := newMount(ctx, mode, m.shop.base, m.o.binary)
	if err != nil {
		return err
	}
	defer mount.end()
	number := 0
	for _, s := range sections {
		for _, c := range s.cases {
			number++
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case !m.o.only.MatchString(c.name) || !c.runsAs(mode.user):
				continue
			}
			if missing := m.missing(c); missing != "" {
				m.skipped++
				fmt.Fprintf(m.out, "SKIPPED %-11s %s: there is no %s\n", mode.name, c.name, missing)
				continue
			}
			refusing := true
			for _, name := range earlier {
				for _, before := range allModes {
					refusing = refusing && !(before.name == name && c.runsAs(before.user))
				}
			}
			files, wrong := m.compare(ctx, mount, c, fmt.Sprintf("%03d", number), refusing)
			m.report(mode, c, files, wrong)
		}
	}
	return nil
}

// missing is a program that the case needs and that is not there.
func (m *matrix) missing(c *toolCase) string {
	for _, name := range c.needs {
		if !m.shop.programs.has(name) {
			return name
		}
	}
	return ""
}

func (m *matrix) report(mode mode, c *toolCase, files int, wrong []string) {
	verdict := "ok"
	if len(wrong) > 0 {
		verdict = "FAIL"
		m.failed++
	} else {
		m.passed++
	}
	fmt.Fprintf(m.out, "%-7s %-11s %s, Files: %d\n", verdict, mode.name, c.name, files)
	for _, w := range wrong {
		fmt.Fprintf(m.out, "        %s\n", strings.ReplaceAll(strings.TrimRight(w, "\n"), "\n", "\n        | "))
	}
}

// parts runs the parts of a case in dir. between is called before do, and before check.
func (m *matrix) parts(ctx context.Context, user, dir string, c *toolCase, between func(part int) error) (*result, error) {
	s, err := m.shop.newScript(user, dir)
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := &result{}
	for i, text := range []string{c.before, c.do, c.check} {
		if i == 1 || text != "" && i > 1 {
			if err := between(i); err != nil {
				return nil, fmt.Errorf("%w\n%s", err, s.printed())
			}
		}
		if r.status[i], err = s.run(ctx, text); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, s.printed())
		}
	}
	r.printed = s.printed()
	return r, nil
}

// natively runs the case in a directory without a mount, once for each user.
func (m *matrix) natively(ctx context.Context, user string, c *toolCase) (*result, error) {
	if r := m.native[c][user]; r != nil {
		return r, nil
	}
	dir := filepath.Join(m.shop.base, "native", "dir")
	if err := makeFor(user, dir); err != nil {
		return nil, err
	}
	defer func() { exec.Command("rm", "-rf", dir).Run() }()
	r, err := m.parts(ctx, user, "/matrix/native/dir", c, func(int) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("natively: %w", err)
	}
	if r.status != [3]string{"0", "0", "0"} {
		return nil, fmt.Errorf("natively its parts end with %v\n%s", r.status, r.printed)
	}
	if r.tree, err = tree(dir); err != nil {
		return nil, err
	}
	if m.native[c] == nil {
		m.native[c] = map[string]*result{}
	}
	m.native[c][user] = r
	return r, nil
}

// compare runs the case in the mount and natively. It returns how many Files do has
// made, and what differs.
func (m *matrix) compare(ctx context.Context, t *testMount, c *toolCase, dir string, refusing bool) (files int, wrong []string) {
	native, err := m.natively(ctx, t.user, c)
	if err != nil {
		return 0, []string{err.Error()}
	}
	files, wrong = m.mounted(ctx, t, c, dir, native)
	if refusing {
		wrong = append(wrong, m.refused(ctx, t, c, dir+"r", native)...)
	}
	return files, wrong
}

// mounted runs the case in the mount, and compares everything.
func (m *matrix) mounted(ctx context.Context, t *testMount, c *toolCase, dir string, native *result) (files int, wrong []string) {
	defer t.remove(ctx, dir)
	if err := t.mkdir(ctx, dir); err != nil {
		return 0, []string{err.Error()}
	}
	var before map[string]bool
	var held []string
	r, err := m.parts(ctx, t.user, filepath.Join(t.inside, dir), c, func(part int) (err error) {
		if part > 1 || c.before != "" {
			held, err = t.settled(ctx, dir)
		}
		if part == 1 {
			before, held = t.ids(), nil
		}
		return err
	})
	if err != nil {
		return 0, []string{err.Error()}
	}
	if r.status != native.status {
		return 0, []string{fmt.Sprintf("its parts end with %v\n%s", r.status, r.printed)}
	}
	more, err := t.settled(ctx, dir)
	if err != nil {
		return 0, []string{err.Error()}
	}
	held = append(held, more...)
	mounted, err := t.tree(ctx, m.self, dir)
	if err != nil {
		return 0, []string{err.Error()}
	}
	var made []local.FileInfo
	for _, f := range t.server.Files() {
		if !before[f.ID] {
			made = append(made, f)
		}
	}
	wrong = append(c.sameTree(native.tree, mounted), c.sameFiles(mounted, made, t.file)...)
	for _, name := range held {
		if !c.holds && !matches(c.varies, name) {
			wrong = append(wrong, name+` is still held when it has ended: say "held: yes"`)
		}
	}
	return len(made), wrong
}

// refused runs the case while the API refuses everything, and compares the exit status
// with what the case says. Where the tool has noticed nothing, all bytes are there.
func (m *matrix) refused(ctx context.Context, t *testMount, c *toolCase, dir string, native *result) []string {
	defer t.refuses.Store(false)
	defer t.remove(ctx, dir)
	if err := t.mkdir(ctx, dir); err != nil {
		return []string{err.Error()}
	}
	refusing := *c
	refusing.check = ""
	r, err := m.parts(ctx, t.user, filepath.Join(t.inside, dir), &refusing, func(part int) error {
		var err error
		if c.before != "" {
			_, err = t.settled(ctx, dir)
		}
		t.refuses.Store(part == 1)
		return err
	})
	if err != nil {
		return []string{"refused: " + err.Error()}
	}
	if r.status[1] != c.refused {
		return []string{fmt.Sprintf("refused: %s\n%s", r.status[1], r.printed)}
	}
	if r.status[1] != "0" {
		return nil
	}
	mounted, err := t.tree(ctx, m.self, dir)
	if err != nil {
		return []string{err.Error()}
	}
	return c.sameTree(native.tree, mounted)
}

// ids are those of all Files.
func (t *testMount) ids() map[string]bool {
	ids := map[string]bool{}
	for _, f := range t.server.Files() {
		ids[f.ID] = true
	}
	return ids
}

// file is the File of this ID, with the sum of its content.
func (t *testMount) file(id string) (local.FileInfo, string, error) {
	for _, f := range t.server.Files() {
		if f.ID == id {
			r, err := t.server.OpenContent(id)
			if err != nil {
				return f, "", err
			}
			defer r.Close()
			s, err := sum(r)
			return f, s, err
		}
	}
	return local.FileInfo{}, "", fmt.Errorf("the API has no File %q", id)
}
