package mount

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes of the command, an interface like any other.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// UsageError is a mistake in how the command was called: exit code 2. Its
// message is one line that says what would be right.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

func usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// reported is an error of a background daemon as its parent passes it on: the
// message and the exit code are the daemon's own.
type reported struct {
	message string
	code    int
}

func (e *reported) Error() string { return e.message }

// LeftError says that a mount has ended with work left, or that files have failed or
// were interrupted. Nothing is lost: the files are in the backing tree, and the next
// mount of the same state directory has them again.
type LeftError struct{ Outcome }

func (e *LeftError) Error() string {
	var lines []string
	switch n := len(e.Left); n {
	case 0:
	case 1:
		lines = append(lines, "1 file is not uploaded yet; mount again to go on with it")
	default:
		lines = append(lines, fmt.Sprintf("%d files are not uploaded yet; mount again to go on with them", n))
	}
	switch n := len(e.Failed) + len(e.Interrupted); n {
	case 0:
	case 1:
		lines = append(lines, "1 file is kept without a File; mount again, see uploadfs info FILE, then uploadfs retry FILE")
	default:
		lines = append(lines, fmt.Sprintf("%d files are kept without a File; mount again, see uploadfs status, then uploadfs retry DIR", n))
	}
	return strings.Join(lines, "\n")
}

// ExitCode is the exit code that err stands for.
func ExitCode(err error) int {
	var usage *UsageError
	var rep *reported
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &rep):
		return rep.code
	case errors.As(err, &usage):
		return ExitUsage
	}
	return ExitFailed
}
