//go:build linux

package fusefs

import "time"

// In tests what the kernel keeps does not age: a copy that is wrong stays wrong.
func init() { cacheTime = 24 * time.Hour }
