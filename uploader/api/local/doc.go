// Package local is an Uploads and Files API server over a directory.
//
// It answers the calls of the OpenAI API that turn parts into a File (POST /v1/uploads, …/parts, …/complete,
// …/cancel) and those of /v1/files. Its JSON and its refusals are those of the service. It has three users: a mount
// that keeps its Files on this machine, the stand-alone server, and tests. For tests it is strict, and it fails on
// request.
//
// # Use
//
//	srv, err := local.Open(local.Options{Dir: dir, Key: key})
//	if err != nil { … }
//	defer srv.Close()
//	err = srv.Serve(listener) // or use srv, an http.Handler, in another http.Server
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
// Completing an Upload copies nothing: the File's record names the parts. No string of a client ever becomes a path.
// The server makes its own IDs, and looks up those of a request in memory. All access goes through an os.Root.
//
// # What survives
//
// A record is written to a temporary file and renamed. A part is renamed into place before it is acknowledged. So
// everything acknowledged survives the death of the process at any instruction (kill -9). It may not survive a power
// cut: nothing is synced, because that would cost more than the upload itself. After a power cut the server moves
// unreadable records to damaged/, and gives Files with missing bytes the status "error".
//
// # Limits of a connection
//
// Parts stream from the socket to the disk through one buffer of 1 MiB. A client that makes no progress for
// Options.StallTimeout is disconnected. A refusal is sent at once, while the client may still be sending 64 MiB. The
// server then reads and drops the rest of the body, because many clients read the answer only after they have written.
package local
