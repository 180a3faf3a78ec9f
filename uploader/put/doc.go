// Package put uploads files that lie anywhere on the machine, without a mount.
//
// A [Job] is one file. A [Sender] sends jobs, several at a time, through one
// [uploader.Uploader] whose journal lies in a [Dir]. A put that is cut off
// leaves its acknowledged parts in that journal, and the next put of the same
// file goes on from there. An [Observer] hears when a job begins and ends.
//
// The package prints nothing and knows no flags. The text of a result is the
// caller's.
package put
