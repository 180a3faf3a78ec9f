// Package local is an Uploads and Files API server over a directory.
//
// It answers the calls of the OpenAI API that turn parts into a File (POST /v1/uploads, …/parts, …/complete,
// …/cancel) and those of /v1/files, in the same JSON and with the same refusals, so that a client cannot tell it
// from the real service by anything but its speed. It serves three masters: a mount that keeps its Files on this
// machine, a stand-alone server, and tests that want a strict opponent who also fails on request.
//
// # Use
//
//	srv, err := local.Open(local.Options{Dir: dir, Key: key})
//	if err != nil { … }
//	defer srv.Close()
//	err = srv.Serve(listener) // or hand srv, an http.Handler, to a server of your own
//
// A Server owns its directory: Open takes a lock on it, and a second Open of the same directory is refused. All
// methods may be called concurrently. Close ends the requests under way, stops the janitor and waits for both.
//
// # What is on disk
//
//	uploads/UPLOAD.json   one record per Upload
//	files/FILE.json       one record per File: a list of parts, in order
//	data/OWNER/PART       the bytes; OWNER is the Upload, or the File when it was posted whole
//	tmp/                  what is still being received; emptied by Open
//	damaged/              records that Open could not read
//
// Completing an Upload copies nothing: the File's record names the parts. No string of a client ever becomes a path:
// IDs are made here, looked up in memory, and only then used, and all access goes through an os.Root.
//
// # What survives
//
// A record is written to a temporary file and renamed; a part is renamed into place before it is acknowledged. So
// what was acknowledged survives the death of the process at any instruction (kill -9). It is not promised to survive
// the death of the machine: nothing is synced, because that would cost more than the upload itself. After a power
// cut records that cannot be read are set aside, and Files whose bytes are short have the status "error".
//
// # Limits of a connection
//
// Parts stream from the socket to the disk through one buffer of 256 KiB. A client that makes no progress for
// Options.StallTimeout is cut off. A refusal is sent at once, while the client may still be sending 64 MiB; the rest
// of the body is then read and dropped, so that a client that reads only after it has written still gets the answer.
package local
