package main

import (
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/put"
	"uploadfs/uploader/state"
)

// How often progress is shown.
const (
	barEvery  = 150 * time.Millisecond
	lineEvery = 10 * time.Second
)

// board shows the progress of a put: on a terminal a bar for each file in flight,
// elsewhere a line now and then. It is a [put.Observer], and may
// be used concurrently.
type board struct {
	w    io.Writer     // for lines; above the bars if there are any
	bars *mpb.Progress // nil without a terminal

	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu    sync.Mutex
	views map[*put.Job]*view // of the files that are being sent
}

// view is one file on the board.
type view struct {
	began time.Time
	from  int64 // bytes that the API had when it began
	text  atomic.Pointer[string]
	bar   *mpb.Bar // nil without a terminal
}

func newBoard(w io.Writer, quiet bool) *board {
	b := &board{w: w, stop: make(chan struct{}), views: map[*put.Job]*view{}}
	every := lineEvery
	switch {
	case quiet:
		b.w = io.Discard
	case isTerminal(w):
		b.bars = mpb.New(mpb.WithOutput(w), mpb.WithRefreshRate(barEvery), mpb.WithAutoRefresh())
		b.w, every = b.bars, barEvery
	}
	b.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-b.stop:
				return
			case now := <-tick.C:
				b.update(now)
			}
		}
	})
	return b
}

// close ends the board; the terminal is then free. A second call does nothing.
func (b *board) close() {
	b.once.Do(func() { close(b.stop) })
	b.wg.Wait()
	if b.bars != nil {
		b.bars.Wait()
	}
}

// Begin implements [put.Observer].
func (b *board) Begin(j *put.Job) {
	st := j.Status()
	v := &view{began: time.Now(), from: st.Acknowledged}
	text := "sending"
	if st.Acked > 0 {
		text = fmt.Sprintf("going on with %s parts", st.PartsDone())
	}
	v.text.Store(&text)
	name := boardName(j)
	if b.bars != nil {
		v.bar = b.bars.AddBar(0, // a total from the start would end the bar before the File exists
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Any(func(decor.Statistics) string { return " " + *v.text.Load() })))
		v.bar.SetTotal(st.Size, false)
		v.bar.SetCurrent(v.from)
		v.bar.SetRefill(v.from)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.views[j] = v
	if v.bar == nil || st.Acked > 0 {
		fmt.Fprintf(b.w, "%s: %s, %s\n", name, text, size(st.Size))
	}
}

// boardName is what the board calls a file.
func boardName(j *put.Job) string { return mount.Printable(filepath.Base(jobName(j))) }

// Unchanged implements [put.Observer].
func (b *board) Unchanged(j *put.Job, st *uploader.Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.w, "%s: %s, unchanged, not sent again\n", boardName(j), st.FileID)
}

// End implements [put.Observer].
func (b *board) End(j *put.Job, st *uploader.Status) {
	b.mu.Lock()
	v := b.views[j]
	delete(b.views, j)
	b.mu.Unlock()
	if v.bar != nil {
		v.bar.Abort(true)
	}
	if st == nil {
		return // the error is printed with the other results
	}
	took := time.Since(v.began)
	rate := float64(st.Size-v.from) / max(took.Seconds(), 1e-3)
	fmt.Fprintf(b.w, "%s: %s, %s in %s, %s/s\n", boardName(j), st.FileID,
		size(st.Size), took.Round(100*time.Millisecond), size(int64(rate)))
}

// update shows the progress of every file.
func (b *board) update(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for j, v := range b.views {
		st := j.Status()
		text := progressText(st, now)
		v.text.Store(&text)
		if v.bar != nil {
			v.bar.SetCurrent(st.Acknowledged)
			continue
		}
		fmt.Fprintf(b.w, "%s: %s\n", boardName(j), text)
	}
}

// progressText describes the progress of a file.
func progressText(st *uploader.Status, now time.Time) string {
	text := amount(st.Progress, st.Size, now)
	switch {
	case st.State == state.Retrying:
		return text + ", " + reason(st, now)
	case st.Acknowledged == st.Size:
		return text + ", all sent, waiting for the File"
	}
	return text
}
