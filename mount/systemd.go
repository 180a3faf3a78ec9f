package mount

import (
	"log/slog"
	"net"
	"os"
)

// notifySystemd sends the mount's state to the service manager that started it
// (sd_notify(3)). Without one nothing happens.
func notifySystemd(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	// net turns a leading @ into the NUL of an abstract socket.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		c.Close()
	}
	if err != nil {
		slog.Warn("the service manager was not notified", "error", err)
	}
}
