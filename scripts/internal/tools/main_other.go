//go:build !linux

// Command tools needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "tools: mounts need Linux")
	os.Exit(1)
}
