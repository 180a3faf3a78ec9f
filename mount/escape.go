package mount

import (
	"fmt"
	"path"
	"strings"
)

// Escape turns an absolute path into one name, byte for byte as
// `systemd-escape --path` does, so that a mount's state directory and a systemd
// mount unit of it are called the same: slashes become dashes, and every byte
// that is neither a slash, a letter, a digit, ':', '_' nor a '.' that is not the
// first becomes \xNN.
func Escape(p string) string {
	p = strings.Trim(path.Clean(p), "/")
	if p == "" {
		return "-"
	}
	var b strings.Builder
	for i := range len(p) {
		c := p[i]
		switch {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i == 0:
			b.WriteString(`\x2e`)
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
