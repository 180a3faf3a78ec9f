package procfs

import (
	"os"
	"strings"
)

// BootID names this boot of the kernel (random(4)); "" where it is not known. It is
// the same in every namespace.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
