package mount

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// StopExtension is how much more time a mount that ends asks the service manager for,
// each extendEvery. It leaves room for the end itself.
const (
	StopExtension = 30 * time.Second
	extendEvery   = 10 * time.Second
)

// notifySystemd sends the mount's state to the service manager that started it
// (sd_notify(3)). Without one nothing happens.
func notifySystemd(state ...string) {
	if _, err := sd.SdNotify(false, strings.Join(state, "\n")); err != nil {
		slog.Warn("the service manager was not notified", "error", err)
	}
}

// extendStop asks the service manager to wait longer for the end, until done is
// closed. A daemon that hangs does not ask, and is killed at the unit's timeout.
func extendStop(done <-chan struct{}) {
	every := time.NewTicker(extendEvery)
	defer every.Stop()
	for {
		notifySystemd(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", StopExtension.Microseconds()))
		select {
		case <-done:
			return
		case <-every.C:
		}
	}
}
