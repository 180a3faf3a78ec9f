package mount

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable makes a name safe for a terminal and for one line: characters that
// do not print, and bytes that are no UTF-8, become Go escapes. Others pass.
func Printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
