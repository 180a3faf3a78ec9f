//go:build !linux

package openai

import (
	"net"
	"time"
)

// unacknowledged returns 0: the system is not asked, and sent bytes count as
// acknowledged.
func unacknowledged(net.Conn) int64 { return 0 }

// tune leaves the options as package net sets them, keepalive among them.
func tune(net.Conn, time.Duration) {}
