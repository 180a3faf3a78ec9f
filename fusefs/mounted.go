package fusefs

import (
	"errors"
	"fmt"

	"uploadfs/fusefs/procfs"
)

// ErrNotMounted means that a mount is in this mount namespace no more.
var ErrNotMounted = errors.New("not mounted")

// CoveredError means that another mount lies on top of one that was to be
// unmounted. The kernel unmounts only what is on top.
type CoveredError struct{ By procfs.Mount }

func (e *CoveredError) Error() string {
	return fmt.Sprintf("covered by another mount (%s from %q): unmount that first", e.By.Type, e.By.Source)
}
