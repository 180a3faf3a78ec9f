package main

import (
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// waitBar is the bar of a wait, on a terminal: one for all files that it waits for.
type waitBar struct {
	files []*awaited
	bars  *mpb.Progress // nil without a terminal
	bar   *mpb.Bar
	text  atomic.Pointer[string]
}

func newWaitBar(w io.Writer, of *waiting) *waitBar {
	b := &waitBar{files: of.files}
	if !isTerminal(w) || len(of.files) == 0 {
		return b
	}
	name := fmt.Sprintf("%d files", len(of.files))
	if len(of.files) == 1 {
		name = mount.Printable(filepath.Base(of.files[0].path))
	}
	text := ""
	b.text.Store(&text)
	b.bars = mpb.New(mpb.WithOutput(w), mpb.WithRefreshRate(barEvery), mpb.WithAutoRefresh())
	b.bar = b.bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Any(func(decor.Statistics) string { return " " + *b.text.Load() })))
	return b
}

// update shows how far the files are.
func (b *waitBar) update() {
	if b.bar == nil {
		return
	}
	var bytes, acked, rate int64
	var trouble string
	now := time.Now()
	for _, f := range b.files {
		st := f.last
		if st == nil || st.State == state.Empty || st.State == state.Excluded {
			continue
		}
		bytes += st.Size
		if st.State == state.Completed {
			acked += st.Size
			continue
		}
		acked += st.Acknowledged
		if rate += st.Rate; st.State == state.Retrying {
			trouble = reason(st, now)
		}
	}
	p := uploader.Progress{Acknowledged: acked, Rate: rate}
	if rate > 0 {
		p.ETA = (bytes - acked) / rate
	}
	text := amount(p, bytes, now)
	if trouble != "" {
		text += "; " + mount.Printable(trouble)
	}
	b.text.Store(&text)
	b.bar.SetTotal(bytes, false)
	b.bar.SetCurrent(acked)
}

// close takes the bar away.
func (b *waitBar) close() {
	if b.bar != nil {
		b.bar.Abort(true)
		b.bars.Wait()
	}
}
