package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
)

// apiError is a refusal as the client sees it. Status is the HTTP status; the rest is the error envelope.
type apiError struct {
	Status  int
	Message string
	Type    string
	Param   string // the parameter at fault; empty is sent as null
	Code    string // empty is sent as null
}

func (e *apiError) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Message) }

// envelope is the JSON form that every refusal has.
func (e *apiError) envelope() []byte {
	type body struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	orNull := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	b, err := json.Marshal(map[string]body{"error": {e.Message, e.Type, orNull(e.Param), orNull(e.Code)}})
	if err != nil { // strings always marshal
		panic(err)
	}
	return append(b, '\n')
}

// typeOf is the error type that the API gives with a status.
func typeOf(status int) string {
	if status >= 500 {
		return "server_error"
	}
	return "invalid_request_error"
}

// refuse makes a refusal with the type that goes with status.
func refuse(status int, param, format string, args ...any) *apiError {
	return &apiError{Status: status, Type: typeOf(status), Param: param, Message: fmt.Sprintf(format, args...)}
}

// badRequest makes a refusal with status 400.
func badRequest(param, format string, args ...any) *apiError {
	return refuse(http.StatusBadRequest, param, format, args...)
}

func missing(param string) *apiError {
	e := badRequest(param, "Missing required parameter: '%s'.", param)
	e.Code = "missing_required_parameter"
	return e
}

func unknownParameter(param string) *apiError {
	e := badRequest(clip(param), "Unknown parameter: '%s'.", clip(param))
	e.Code = "unknown_parameter"
	return e
}

// notUnderstood is the service's answer to a form that it cannot read. A part without a filename is one.
func notUnderstood() *apiError {
	return badRequest("", "The browser (or proxy) sent a request that this server could not understand.")
}

// tooLarge refuses a size above a limit of the API. A body that is larger than any permitted size could need gets a 413
// instead, as from a proxy.
func tooLarge(param string) *apiError { return badRequest(param, "File is too large.") }

func bodyTooLarge() *apiError {
	return refuse(http.StatusRequestEntityTooLarge, "", "The request body is too large.")
}

func noSuchUpload(id string) *apiError {
	return refuse(http.StatusNotFound, "id", "No such Upload object: %s", clip(id))
}

func noSuchFile(id string) *apiError {
	return refuse(http.StatusNotFound, "id", "No such File object: %s", clip(id))
}

// ended refuses a call that needs a pending Upload.
func ended(id, status string) *apiError {
	switch status {
	case statusExpired:
		return badRequest("", "Upload %s has expired.", id)
	default:
		return badRequest("", "Upload %s is already %s.", id, status)
	}
}

func wrongPurpose(purpose string) *apiError {
	return badRequest("purpose", "'%s' is not one of ['%s'] - 'purpose'", clip(purpose), strings.Join(purposes, "', '"))
}

// closing answers requests that arrive during or after Close.
func closing() *apiError {
	return refuse(http.StatusServiceUnavailable, "", "The server is shutting down; send the request again later.")
}

// internal hides an error of ours from the client, except an errno: the user can act on a full disk.
func internal(err error) *apiError {
	reason := "an internal error"
	var errno syscall.Errno
	if errors.As(err, &errno) {
		reason = errno.Error()
	}
	return refuse(http.StatusInternalServerError, "", "The server could not do this: %s.", reason)
}

// clip shortens a string of the client that a message repeats.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
