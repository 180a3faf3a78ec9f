// Package journal is the durable memory of the uploader: which file is in which
// state, which parts of it the API has, and which Files are spoken for. It knows
// no session and starts no upload; it records what it is told and answers.
//
// It is one SQLite database with a write-ahead log. A commit survives a killed
// daemon and does not wait for the disk. A power cut can take the last commits,
// never the database. [Journal.Sync] has the records so far brought to the disk
// in the background.
package journal
