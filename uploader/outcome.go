package uploader

import "errors"

// ErrOutcomeUnknown is in the chain of an error of Complete whose answer was
// lost, or was of no use, after the request may have been carried out: the File
// may exist. Such a call must not be repeated blindly, since a second File could
// come of it; [Backend.FindFiles] tells whether there is one.
var ErrOutcomeUnknown = errors.New("the answer was lost, the File may exist")

// ErrNotSent is in the chain of an error of a call that certainly did not reach
// the server: its name was not found, it refused the connection, the TLS
// handshake failed, or the context ended before there was a connection. Such a
// call may always be repeated, Complete included.
var ErrNotSent = errors.New("the request was not sent")
