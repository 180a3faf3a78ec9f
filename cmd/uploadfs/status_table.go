package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

// queries are those whose answers the table of a mount is made of.
func (c *statusConfig) queries(s screen) []uploader.Query {
	n := s.rows()
	if c.listing() {
		return []uploader.Query{c.query(2 * n)}
	}
	return []uploader.Query{
		{States: []state.State{state.Failed}, Limit: n},
		{States: []state.State{state.Interrupted}, Limit: n},
		{Sending: true, Limit: n},
	}
}

// listing reports whether files are to be listed instead of the overview.
func (c *statusConfig) listing() bool { return c.all || c.state != "" }

// print prints the reports of each mount, made by queries.
func (c *statusConfig) print(w io.Writer, s screen, list [][]mount.Report, now time.Time) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no uploadfs mounts")
		return err
	}
	out := &cutter{w: w, screen: s}
	for i, r := range list {
		if i > 0 {
			fmt.Fprintln(out)
		}
		title(out, &r[0])
		var err error
		if c.listing() {
			err = printFiles(out, &r[0], now)
		} else {
			err = printOverview(out, s, joined(r[0], r[1], s.rows()), &r[2], now)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func title(w io.Writer, r *mount.Report) {
	line := mount.Printable(r.MountPoint)
	if r.Paused {
		line += " (paused: nothing is sent until uploadfs resume " + mount.Printable(r.MountPoint) + ")"
	}
	if r.Ending {
		line += " (unmounted; uploading what is pending)"
	}
	fmt.Fprintln(w, line)
}

// printFiles lists the files of a report.
func printFiles(w io.Writer, r *mount.Report, now time.Time) error {
	t := columns(w)
	row(t, "  STATE", "PARTS", "SIZE", "PATH", "REASON")
	for _, f := range r.Files {
		row(t, "  "+stateShown(f), f.PartsDone(), size(f.Size), f.Path, reason(f, now))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return more(w, r)
}

// more says how many files of a report are not shown.
func more(w io.Writer, r *mount.Report) error {
	if n := r.Matches - len(r.Files); n > 0 {
		_, err := fmt.Fprintf(w, "  … %d more\n", n)
		return err
	}
	return nil
}

// joined is one list of at most n files, those of a before those of b.
func joined(a, b mount.Report, n int) *mount.Report {
	a.Matches += b.Matches
	a.Files = slices.Concat(a.Files, b.Files)
	a.Files = a.Files[:min(len(a.Files), n)]
	return &a
}

// printOverview shows what has failed or was interrupted, then what is being sent, then the rest in
// numbers.
func printOverview(w io.Writer, s screen, kept, sending *mount.Report, now time.Time) error {
	if len(kept.Files) > 0 {
		t := columns(w)
		for _, f := range kept.Files {
			row(t, "  "+string(f.State), f.Path, f.Error)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if err := more(w, kept); err != nil {
			return err
		}
		dir := mount.Printable(kept.MountPoint)
		example := mount.Printable(filepath.Join(kept.MountPoint, kept.Files[0].Path))
		fmt.Fprintf(w, "  uploadfs info %s says more; uploadfs retry %s tries all again\n\n", example, dir)
	}
	if len(sending.Files) > 0 {
		t := columns(w)
		for _, f := range sending.Files {
			row(t, "  "+f.Path, bar(f.Acknowledged, f.Size, barWidth(s)), sendingText(f, now))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if err := more(w, sending); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return printFacts(w, sending, now)
}

// comparing says that states may still change, and why.
func comparing(c *uploader.Comparing) string {
	if c.Error != "" {
		return "each file is compared with the journal when it is used: " + c.Error
	}
	return fmt.Sprintf("the tree with the journal, %d of %d files so far: the states of the others are those of the last mount", c.Compared, c.Records)
}

// printFacts prints what a mount is, and its numbers.
func printFacts(w io.Writer, r *mount.Report, now time.Time) error {
	t := columns(w)
	row(t, "  endpoint", r.Endpoint)
	row(t, "  state dir", r.StateDir)
	row(t, "  write path", r.WritePath)
	row(t, "  disk", fmt.Sprintf("%s used, %s free", size(r.Disk.Used), size(r.Disk.Free)))
	row(t, "  in flight", fmt.Sprintf("%d of %d", r.InFlight, r.Parallel))
	if r.Limit > 0 {
		row(t, "  limit", size(r.Limit)+"/s")
	}
	if r.Sending.Bytes > 0 {
		row(t, "  sent", amount(r.Sending.Progress, r.Sending.Bytes, now))
	}
	row(t, "  files", counts(r.Counts, r.Queued))
	if c := r.Comparing; c != nil {
		row(t, "  comparing", comparing(c))
	}
	if r.Page != "" {
		row(t, "  page", r.Page)
	}
	for _, note := range r.Notes {
		row(t, "  note", note)
	}
	return t.Flush()
}

// barWidth is how wide a bar is on a screen.
func barWidth(s screen) int {
	const most, least = 20, 6
	if s.width == 0 {
		return most
	}
	return min(max(s.width/6, least), most)
}

// bar draws how much of n is done, as in [####----]  50%.
func bar(done, n int64, width int) string {
	full := 1.0
	if n > 0 {
		full = float64(min(done, n)) / float64(n)
	}
	filled := int(full * float64(width))
	return fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("#", filled), strings.Repeat("-", width-filled), int(full*100))
}

// sendingText describes the progress of a file beside its bar.
func sendingText(f *uploader.Status, now time.Time) string {
	var list []string
	if p := f.PartsDone(); p != "" {
		list = append(list, p+" parts")
	}
	switch {
	case f.State == state.Retrying:
		list = append(list, attempt(f, now), f.Error)
	case f.UploadID != "" && f.Acked == f.Total:
		list = append(list, "all sent, waiting for the File")
	default:
		list = append(list, speedText(f.Progress, now)...)
	}
	return strings.Join(list, ", ")
}

// attempt says when the next attempt of a retrying file is.
func attempt(f *uploader.Status, now time.Time) string {
	switch {
	case f.Calls > 0:
		return "trying again now"
	case f.NextAttempt.IsZero():
		return "waits to try again"
	}
	return "next attempt " + when(f.NextAttempt, now)
}

// amount describes a progress of n bytes.
func amount(p uploader.Progress, n int64, now time.Time) string {
	return strings.Join(append([]string{fmt.Sprintf("%s of %s", size(p.Acknowledged), size(n))}, speedText(p, now)...), ", ")
}

// speedText is the rate and the time left, where they are known.
func speedText(p uploader.Progress, now time.Time) (list []string) {
	if p.Rate > 0 {
		list = append(list, size(p.Rate)+"/s")
	}
	if p.ETA > 0 {
		list = append(list, left(p.ETA, now))
	}
	return list
}

// stateShown is the state of a file as people see it.
func stateShown(f *uploader.Status) string {
	if f.Queued {
		return stateQueued
	}
	return string(f.State)
}

// reason says why a file is in its state, and when the next attempt is.
func reason(f *uploader.Status, now time.Time) string {
	if f.State != state.Retrying {
		return f.Error
	}
	return strings.TrimPrefix(f.Error+"; "+attempt(f, now), "; ")
}

// counts says how many files are in which state, in the order of states. Those that wait
// for their turn are counted apart from those that are uploading.
func counts(n map[state.State]int, queued int) string {
	var list []string
	add := func(n int, what string) {
		if n > 0 {
			list = append(list, fmt.Sprintf("%d %s", n, what))
		}
	}
	for _, s := range state.All {
		if s != state.Uploading {
			add(n[s], string(s))
			continue
		}
		queued = min(queued, n[s]) // they were not counted at the same moment
		add(n[s]-queued, string(s))
		add(queued, stateQueued)
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
