//go:build linux

// Package browser looks at the page of a mount in a real browser. What only these tests
// need is in this module.
package browser

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

const (
	binaryEnv = "UPLOADFS_TEST_BINARY"  // the built command
	chromeEnv = "UPLOADFS_TEST_BROWSER" // Chromium
	shotsEnv  = "UPLOADFS_TEST_SHOTS"   // a directory for pictures of the page; none without it
	timeout   = 5 * time.Minute         // a slow machine must not reach it
	key       = "sk-browser-0123456789abcdef"
)

// mount is a running mount with a page, and the API server behind it.
type mount struct {
	*testing.T
	dir, point, page string
	env              []string
	api              *local.Server
}

func newMount(t *testing.T) *mount {
	dir := t.TempDir()
	api, err := local.Open(local.Options{Dir: filepath.Join(dir, "api"), Key: key})
	require.NoError(t, err)
	server := httptest.NewServer(api)
	t.Cleanup(func() { server.Close(); require.NoError(t, api.Close()) })
	m := &mount{T: t, dir: dir, point: filepath.Join(dir, "up"), api: api}
	require.NoError(t, os.Mkdir(m.point, 0o755))
	m.env = append(os.Environ(), "OPENAI_API_KEY="+key, "OPENAI_BASE_URL="+server.URL+"/v1", "XDG_STATE_HOME=", "HOME="+dir)
	out := m.uploadfs("mount", "--state-dir", filepath.Join(dir, "state"), "--http", "0", "--part-size", "8MiB",
		"--parallel", "2", "--close", "background", "--settle", "0", m.point)
	t.Cleanup(func() {
		cmd := exec.Command(os.Getenv(binaryEnv), "unmount", m.point)
		cmd.Env = m.env
		_ = cmd.Run() // the test may have done so
	})
	page, ok := strings.CutPrefix(strings.TrimSpace(out), "page: ")
	require.True(t, ok, out)
	m.page = page
	return m
}

func (m *mount) uploadfs(args ...string) string {
	m.Helper()
	cmd := exec.Command(os.Getenv(binaryEnv), args...)
	cmd.Env = m.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(m, err, "uploadfs %s: %s", strings.Join(args, " "), stderr.String())
	return string(out)
}

func (m *mount) write(name string, size int) {
	m.Helper()
	require.NoError(m, os.WriteFile(filepath.Join(m.point, name), bytes.Repeat([]byte("x"), size), 0o644))
}

// gate holds parts back, until the gate is opened.
func (m *mount) gate() (open func()) {
	closed := make(chan struct{})
	m.api.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpPart && p.Stage == local.StageReceived {
			select {
			case <-closed:
			case <-p.Request.Context().Done():
			}
		}
		return nil
	})
	return func() { m.api.SetIntercept(nil); close(closed) }
}

// newTab opens a browser. It counts requests to other hosts than the page's.
func newTab(m *mount) (ctx context.Context, foreign func() []string) {
	chrome := os.Getenv(chromeEnv)
	require.NotEmpty(m, chrome, "%s names no browser", chromeEnv)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chrome),
		chromedp.NoSandbox, // as root in a container there is none; the only page is ours
		chromedp.UserDataDir(filepath.Join(m.dir, "browser")))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	m.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	m.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	m.Cleanup(cancel)
	var mu sync.Mutex
	var others []string
	host := strings.SplitN(strings.TrimPrefix(m.page, "http://"), "/", 2)[0]
	require.NoError(m, chromedp.Listen(ctx, func(event any) {
		r, ok := event.(*network.EventRequestWillBeSent)
		if ok && !strings.HasPrefix(r.Request.URL, "http://"+host+"/") && !strings.HasPrefix(r.Request.URL, "data:") {
			mu.Lock()
			defer mu.Unlock()
			others = append(others, r.Request.URL)
		}
	}))
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	require.NoError(m, err)
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return others
	}
}

// awaitJS waits until an expression is true in the page. The page allows no eval, so the
// browser cannot poll by itself.
func (m *mount) awaitJS(ctx context.Context, what, expression string) {
	m.Helper()
	for {
		var text string
		yes, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err != nil || ctx.Err() != nil {
			text, _ = chromedp.Run(context.WithoutCancel(ctx), chromedp.Evaluate[string]("document.body.innerText"))
		}
		require.NoError(m, err, "%s: %s\n%s", what, expression, text)
		if yes {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (m *mount) js(ctx context.Context, expression string) (value string) {
	m.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expression+")"))
	require.NoError(m, err, expression)
	return value
}

// shot keeps a picture of the page, where pictures are wanted.
func (m *mount) shot(ctx context.Context, name string) {
	if dir := os.Getenv(shotsEnv); dir != "" {
		png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		require.NoError(m, err)
		require.NoError(m, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
	}
}

const grid = `document.querySelector('#flight li[data-path="train.jsonl"] .grid')`

// One mount from a running upload to its completion, and a failure.
func TestPage(t *testing.T) {
	m := newMount(t)
	open := m.gate()
	ctx, foreign := newTab(m)
	require.NoError(t, chromedp.Do(ctx, chromedp.EmulateViewport(1000, 900), chromedp.Navigate(m.page)))
	m.awaitJS(ctx, "live", `document.querySelector('#connection').textContent === 'live'`)
	require.Equal(t, m.point, m.js(ctx, `document.querySelector('h1').textContent`))

	m.write("train.jsonl", 40<<20)
	m.awaitJS(ctx, "two parts are on their way", grid+` && `+grid+`.querySelectorAll('.s').length === 2`)
	require.Equal(t, "parts: 3 waiting, 2 sending", m.js(ctx, grid+`.getAttribute('aria-label')`))
	require.Equal(t, "2 of 2", m.js(ctx, `[...document.querySelectorAll('#totals div')].find(d => d.firstChild.textContent === 'Parts in flight').lastChild.textContent`))
	m.shot(ctx, "page-light")

	// The keyboard reaches the file, and it keeps the focus while the page changes.
	m.js(ctx, `document.querySelector('#flight li').focus()`)
	open()
	m.awaitJS(ctx, "completed", `[...document.querySelectorAll('#completed li')].some(e => e.dataset.path === 'train.jsonl')`)
	m.awaitJS(ctx, "nothing is in flight", `!document.querySelector('#flight-none').hidden`)
	m.awaitJS(ctx, "told to screen readers", `document.querySelector('#news').textContent.startsWith('completed: train.jsonl as file-')`)
	m.awaitJS(ctx, "plotted", `document.querySelector('#plot-line').getAttribute('d').length > 1 && !document.querySelector('#plot-text').textContent.includes('at most 0 B/s')`)

	m.api.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpComplete && p.Stage == local.StageHead {
			return &local.Fault{Status: http.StatusBadRequest, Message: "This <b>organisation</b> is tired."}
		}
		return nil
	})
	m.write("it's <i>bad<b>", 10)
	m.awaitJS(ctx, "failed", `document.querySelector('#failures li.failed .error')?.textContent.includes('<b>organisation</b> is tired.')`)
	require.Equal(t, "it's <i>bad<b>", m.js(ctx, `document.querySelector('#failures li .name').textContent`), "text, not HTML")
	require.Equal(t, `uploadfs retry '`+m.point+`/it'\''s <i>bad<b>'`, m.js(ctx, `document.querySelector('#failures li code').textContent`))
	m.shot(ctx, "page-failure")

	// Dark, and as narrow as a phone: nothing is cut off.
	light := m.js(ctx, `getComputedStyle(document.body).backgroundColor`)
	require.NoError(t, chromedp.Do(ctx, chromedp.EmulateViewport(360, 740, chromedp.EmulateScale(2), chromedp.EmulateMobile)))
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
	})
	require.NoError(t, err)
	require.NotEqual(t, light, m.js(ctx, `getComputedStyle(document.body).backgroundColor`))
	require.Equal(t, "true", m.js(ctx, `document.documentElement.scrollWidth <= innerWidth`))
	m.shot(ctx, "page-phone")

	// Each list item, the landmarks and the plot have names; ids are not used twice.
	require.Equal(t, "", m.js(ctx, `[...document.querySelectorAll('section, [role=img]')].filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML).join()`))
	require.Equal(t, "true", m.js(ctx, `(ids => new Set(ids).size === ids.length)([...document.querySelectorAll('[id]')].map(e => e.id))`))

	// The token is the only way in. The page says when the mount has gone.
	resp, err := chromedp.RunResponse(ctx, chromedp.Navigate(strings.Split(m.page, "?")[0]))
	require.NoError(t, err)
	require.EqualValues(t, http.StatusForbidden, resp.Status)
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(m.page)))
	m.awaitJS(ctx, "live again", `document.querySelector('#connection').textContent === 'live'`)
	require.Empty(t, foreign(), "no other host is asked")
	require.NoError(t, os.Remove(filepath.Join(m.point, "it's <i>bad<b>")))
	m.uploadfs("unmount", m.point)
	m.awaitJS(ctx, "the mount has gone", `document.querySelector('#connection').className === 'lost'`)
}
