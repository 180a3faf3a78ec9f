//go:build linux

package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/state"
)

// The rows of info for a file that was written more than once.
var (
	rowFilesMade = `(?m)^  files made +`
	rowAdvice    = `(?m)^  advice +each close makes a File: mount with --close=background, which is made for this$`
)

// TestInfoOfAFileMadeOften: info counts the Files of a file, and says from the third
// within a minute on what is made for its program.
func TestInfoOfAFileMadeOften(t *testing.T) {
	eachUser(t, func(b *box) {
		b.mount("--embedded")
		info := func(name string) string { return b.ok("info", filepath.Join(b.point, name)) }
		b.shOK(`echo 1 > "$M/f"`)
		require.NotRegexp(b, rowFilesMade, info("f"))
		b.shOK(`echo 2 >> "$M/f"`)
		require.Regexp(b, rowFilesMade+`2$`, info("f"))
		require.NotRegexp(b, rowAdvice, info("f"))
		b.shOK(`echo 3 >> "$M/f"; echo other > "$M/g"`)
		require.Regexp(b, rowFilesMade+`3$`, info("f"))
		require.Regexp(b, rowAdvice, info("f"))
		require.True(b, b.info("f").MadeOften, "for programs too")
		require.NotRegexp(b, rowAdvice, info("g"))
		b.shOK(`mv "$M/f" "$M/h"`)
		require.Regexp(b, rowAdvice, info("h"), "under whatever name")
		b.ok("unmount", b.point)

		// The advice is followed already.
		b.mount("--embedded", "--close=background", "--settle=0")
		for _, line := range []string{"4", "5", "6"} {
			b.shOK(`echo ` + line + ` >> "$M/h"`)
			b.await("the File", func() bool { return b.info("h").State == state.Completed })
		}
		require.Regexp(b, rowFilesMade+`6$`, info("h"))
		require.NotRegexp(b, rowAdvice, info("h"))
	})
}

// TestSettleFlag: within its time to settle a file makes one File, and the end of the
// mount sends it.
func TestSettleFlag(t *testing.T) {
	eachUser(t, func(b *box) {
		b.mount("--embedded", "--close=background", "--settle=1h", "--hold-for=1h")
		b.shOK(`for i in 1 2 3 4 5 6 7 8; do echo $i >> "$M/f"; done`)
		require.Equal(b, state.Uploading, b.info("f").State)
		b.ok("retry", filepath.Join(b.point, "f"))
		b.ok("wait", filepath.Join(b.point, "f"))
		st := b.info("f")
		require.Equal(b, 1, st.FilesMade())
		b.shOK(`echo 9 >> "$M/f"; echo new > "$M/g"`)
		b.ok("unmount", b.point)

		b.mount("--embedded")
		for name, files := range map[string]int{"f": 2, "g": 1} {
			st := b.info(name)
			require.Equal(b, state.Completed, st.State)
			require.Equal(b, files, st.FilesMade())
		}
		b.ok("unmount", b.point)
		b.refused(2, "--settle", "mount", "--settle=-1s", b.point)
	})
}
