package api

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Kind says what an error means for the content it concerns. It decides whether the
// call is retried, and which errno the writing program gets.
type Kind int

const (
	// Transient passes by itself: an outage, a timeout, 408, 409, 429, 5xx.
	Transient Kind = iota
	// Gone means that the Upload is unknown or expired: the content needs a new one.
	Gone
	// Denied is 401 or 403: the key or its rights.
	Denied
	// Quota is an exhausted quota. Its status is 429, but waiting does not help.
	Quota
	// TooLarge is a size limit of the API or of a proxy (413).
	TooLarge
	// Refused is every other refusal that will not change by itself.
	Refused
	// Interrupted means that the writing program did not finish: it was killed,
	// or the file was still open when the daemon died.
	Interrupted
	// Local is an error of this machine's disk that is not a failed write.
	Local
	// Damaged means that a write to the backing file failed (ENOSPC, EIO, …).
	// Its bytes are missing, so the content is not what the program wrote.
	Damaged
	// Removed means that the file lost its last name before it was completed.
	Removed
	// Stopped means that the daemon is ending; the content stays for the next mount.
	Stopped
)

func (k Kind) String() string {
	return [...]string{"transient", "gone", "denied", "quota", "too large", "refused",
		"interrupted", "local", "damaged", "removed", "stopped"}[k]
}

// Error is an error of a Backend call or of a session.
type Error struct {
	Op       string // "create", "part", "complete", "cancel", "find", "get", or a local operation
	UploadID string // "" where there is none yet
	Kind     Kind
	// Status is the HTTP status of the answer, 0 where there was none.
	Status int
	// RetryAfter is how long the API asks to wait; 0 when it does not say.
	RetryAfter time.Duration
	// ServerTime is when the API answered, by its own clock and in whole seconds
	// (the Date of the answer, RFC 9110, section 6.6.1); zero when it does not say.
	ServerTime time.Time
	// Message is for people: the API's own words, one line.
	Message string
	Err     error // the cause, or nil
}

// Error gives one line with the operation, the Upload and the message.
func (e *Error) Error() string {
	msg := e.Message
	if msg == "" && e.Err != nil {
		msg = e.Err.Error()
	}
	if e.Op == "" {
		return msg
	}
	if e.UploadID == "" {
		return fmt.Sprintf("%s: %s", e.Op, msg)
	}
	return fmt.Sprintf("%s %s: %s", e.Op, e.UploadID, msg)
}

func (e *Error) Unwrap() error { return e.Err }

// LocalError wraps an error of the local disk. op names the operation that failed.
func LocalError(op string, err error) error {
	return &Error{Op: op, Kind: Local, Err: err}
}

// OneLine returns the message of err for people: without line breaks and control
// characters, at most 500 bytes and an ellipsis.
func OneLine(err error) string {
	if err == nil {
		return ""
	}
	msg := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, err.Error())
	if len(msg) > 500 {
		msg = strings.ToValidUTF8(msg[:500], "") + "…"
	}
	return msg
}

// KindOf returns the first Kind in the chain of err. An error without one is
// Transient: an unknown fault is retried, not given up.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Transient
}

// tooManyRequests is the status of an answer that asks for fewer calls.
const tooManyRequests = 429

// RateLimited reports whether the API has asked for fewer calls, and how long it asks
// to wait; 0 where it does not say. An exhausted quota is no such answer.
func RateLimited(err error) (retryAfter time.Duration, limited bool) {
	var e *Error
	if errors.As(err, &e) && e.Status == tooManyRequests && e.Kind == Transient {
		return e.RetryAfter, true
	}
	return 0, false
}

// ErrOutcomeUnknown is in the chain of an error of Complete whose answer was lost, or
// was of no use, after the request may have been carried out: the File may exist.
var ErrOutcomeUnknown = errors.New("the answer was lost, the File may exist")

// ErrAlreadyCompleted is in the chain of an error of Complete when the API says that
// the Upload was completed before: the File exists, but the answer does not name it.
// [ErrOutcomeUnknown] is in the chain of ErrAlreadyCompleted.
var ErrAlreadyCompleted error = alreadyCompleted{}

type alreadyCompleted struct{}

func (alreadyCompleted) Error() string { return "the Upload is already completed" }
func (alreadyCompleted) Unwrap() error { return ErrOutcomeUnknown }

// ErrAnswerTimeout is in the chain of an error of a call whose request arrived and was
// not answered in time: the server, or a proxy before it, may be slow.
var ErrAnswerTimeout = errors.New("the answer timed out")

// ErrNotSent is in the chain of an error of a call that certainly did not reach
// the server: its name was not found, it refused the connection, the TLS
// handshake failed, or the context ended before there was a connection. Such a
// call may always be repeated, Complete included.
var ErrNotSent = errors.New("the request was not sent")
