package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"uploadfs/mount"
)

// columns aligns cells that are separated by tabs.
func columns(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 2, ' ', 0) }

// row prints one line of columns, with a dash for an empty cell. Names and messages
// may hold control characters, so it escapes what could move the cursor or a column.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		if cells[i] = mount.Printable(c); c == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// when prints a time as people say it: "12 seconds from now", "3 minutes ago".
func when(t, now time.Time) string {
	return humanize.RelTime(t, now, "ago", "from now")
}

// left prints a time in seconds as people say it: "2 minutes left".
func left(seconds int64, now time.Time) string {
	d := time.Duration(min(seconds, math.MaxInt32)) * time.Second
	return humanize.RelTime(now.Add(d), now, "", "left")
}

// exactly prints a size rounded and in full: "1.0 KiB (1,025 bytes)".
func exactly(n int64) string { return fmt.Sprintf("%s (%s bytes)", size(n), humanize.Comma(n)) }
